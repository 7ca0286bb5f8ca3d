"""Copies weights_manifest.json into the wheel, which pyproject.toml cannot do. All other settings are there."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MANIFEST = "weights_manifest.json"


class BuildPy(build_py):
    def _manifest(self) -> list[tuple[str, str]]:
        # an editable install uses the manifest of the checkout
        return [] if self.editable_mode else [(MANIFEST, str(Path(self.build_lib, "hih_align", MANIFEST)))]

    def run(self) -> None:
        super().run()
        for source, target in self._manifest():
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(target for _, target in self._manifest())]


setup(cmdclass={"build_py": BuildPy})
