#!/usr/bin/env python3
"""Fetches what Binnacle is compared with: Prometheus 3 and VictoriaMetrics, as Debian unstable packages them."""

import os
import subprocess
from pathlib import Path


def fetch_peers(cache):
    """The newest packages of Debian unstable, unpacked into the cache."""
    apt = cache / "apt"
    for part in ("lists/partial", "cache/archives/partial", "etc"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "etc/sources.list").write_text(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n"
    )
    (apt / "etc/apt.conf").write_text(
        f'Dir::Etc::sourcelist "{apt}/etc/sources.list";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State::lists "{apt}/lists";\nDir::Cache "{apt}/cache";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "etc/apt.conf")}
    packages = {}
    for package in ("prometheus", "victoria-metrics"):
        if not list(cache.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "-q", "update"], env=environment, check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["apt-get", "-q", "download", package], env=environment, check=True, cwd=cache)
        deb = sorted(cache.glob(f"{package}_*.deb"))[-1]
        packages[package] = deb.name.split("_")[1]
        if not (cache / package).is_dir():
            subprocess.run(["dpkg-deb", "-x", deb, cache / package], check=True)
    return packages


if __name__ == "__main__":
    folder = Path.home() / ".cache/binnacle/peers"
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in fetch_peers(folder).items():
        print(f"{name} {version} in {folder / name}")
