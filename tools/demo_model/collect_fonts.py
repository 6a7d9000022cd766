#!/usr/bin/env python3
"""Copies the fonts that the generator prints with into FOLDER, for a machine that has no such packages.

    apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-liberation fonts-freefont-ttf fonts-lato \
        fonts-open-sans fonts-hack fonts-comic-neue fonts-roboto-unhinted fonts-crosextra-carlito \
        fonts-crosextra-caladea
    collect_fonts.py FOLDER            then, there: PRISM_DEMO_FONTS=FOLDER
"""

import argparse
import pathlib
import shutil

import pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    files = pictures.font_files()
    for path in files:
        shutil.copy(path, folder)
    size = sum(pathlib.Path(path).stat().st_size for path in files)
    print(f"{len(files)} fonts, {size / 1e6:.1f} MB in {folder}")


if __name__ == "__main__":
    main()
