"""PyInstaller's hook: it collects the data files of the package, and modules that are imported by name."""

from pathlib import Path

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

MANIFEST = "weights_manifest.json"

package = Path(__file__).resolve().parents[1]
datas = collect_data_files("hih_align")
if not (package / MANIFEST).is_file():  # in a checkout the manifest lies beside the package
    datas.append((str(package.parent / MANIFEST), "hih_align"))
hiddenimports = collect_submodules("hih_align.cli")
