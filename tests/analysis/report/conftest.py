"""Fixtures for tests of reports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.report.build import write_report
from analysis.report.page import Page
from analysis.statistics import averages, cross_validation, posterior, sobol
from tests.analysis.report.helpers import build, whole_sweep


@pytest.fixture(scope="package", autouse=True)
def coarse() -> Iterator[None]:
    """Evaluate surrogates at fewer points and kernels, which is faster and otherwise the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sobol, "_POINTS", 256)
        patch.setattr(sobol, "_POINTS_OF_DRAWS", 256)
        patch.setattr(averages, "_CURVE_VALUES", 9)
        patch.setattr(averages, "_MAP_VALUES", 7)
        patch.setattr(cross_validation, "_FOLDS", 4)
        patch.setattr(cross_validation, "_SHUFFLES", 2)
        patch.setattr(posterior, "_KERNELS", 12)
        yield


@pytest.fixture(scope="package")
def page() -> Page:
    return build(whole_sweep())


@pytest.fixture(scope="package")
def written(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the written report."""
    folder = tmp_path_factory.mktemp("report")
    write_report(page, whole_sweep(), folder)
    return folder
