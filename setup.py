"""Puts data/ into wheels: an installed copy finds its bundles, samples and styles as a checkout does."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """`build_py`, and data/ as vtoonify_lib/data, unless the package is only linked to (`pip install -e`)."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(Path(__file__).parent / "data", Path(self.build_lib) / "vtoonify_lib" / "data",
                            dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
