"""Sactory's metadata and requirements: the only packaging truth.

The pins below are what must not move; requirements.lock (`make lock`) fixes every other version.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

PROGRAMS = ["replay_server", "collect", "train", "eval", "supervise", "slurm"]

REQUIREMENTS = [
    "tensorflow==2.15.1",
    "tf-agents[reverb]==0.19.0",
    "dm-reverb==0.14.0",
    "gin-config==0.5.0",
    "numpy==1.26.4",  # TensorFlow 2.15 does not load with numpy 2
    "setuptools<81",  # TensorBoard 2.15 imports pkg_resources, which 81 dropped
    "dm_control==1.0.50; python_version >= '3.10'",
    "mujoco==3.17.0; python_version >= '3.10'",
    "dm_control==1.0.34; python_version < '3.10'",
    "mujoco==3.3.7; python_version < '3.10'",  # the last one with a wheel for Python 3.9
    "absl-py>=2.1",
    "cramjam>=2.8",  # Snappy, in which Reverb's checkpoints hold their tensors
    "cryptography>=45",
    "dm-env>=1.6",
    "imageio>=2.37,<3",
    "imageio-ffmpeg>=0.6",
    "matplotlib>=3.9",
    "portpicker>=1.6",
    "psutil>=7,<8",
    "rich>=14",
]

GYMNASIUM = [
    "gymnasium==1.3.0; python_version >= '3.10'",  # 1.4 wants newer typing_extensions
    "gymnasium==1.1.1; python_version < '3.10'",  # the last one for Python 3.9
]

EXTRAS = {
    "dev": [
        *GYMNASIUM,
        "basedpyright>=1.39",
        "hypothesis>=6.141",
        "jsonschema>=4.23",
        "pytest>=8.4",
        "pytest-cov>=7",
        "pytest-timeout>=2.4",
        "ruff>=0.17.5,<0.18",  # another minor version formats differently
        "uv>=0.13,<0.14",
    ],
    "gymnasium": GYMNASIUM,
    # Not in the lock: 100 MB that few runs need. Wheels for Python 3.9-3.11.
    "pybullet": [*GYMNASIUM, "pybullet==3.2.7", "pybullet-envs-gymnasium==0.6.0"],
    # What tensorflow[and-cuda]==2.15.1 asks for. Not in the lock: 2 GB that few machines can use.
    "gpu": [
        "nvidia-cublas-cu12==12.2.5.6",
        "nvidia-cuda-cupti-cu12==12.2.142",
        "nvidia-cuda-nvcc-cu12==12.2.140",
        "nvidia-cuda-nvrtc-cu12==12.2.140",
        "nvidia-cuda-runtime-cu12==12.2.140",
        "nvidia-cudnn-cu12==8.9.4.25",
        "nvidia-cufft-cu12==11.0.8.103",
        "nvidia-curand-cu12==10.3.3.141",
        "nvidia-cusolver-cu12==11.5.2.141",
        "nvidia-cusparse-cu12==12.1.2.141",
        "nvidia-nccl-cu12==2.16.5",
        "nvidia-nvjitlink-cu12==12.2.140",
    ],
}


def version() -> str:
    """The version as text: importing the package would need its requirements."""
    text = (Path(__file__).parent / "sactory" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('sactory/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="sactory",
    version=version(),
    description="Distributed Soft Actor-Critic: separate programs that meet in Reverb tables",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Private :: Do Not Upload",  # plain top-level names (train, eval, ...) suit a venv only
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.9,<3.12",  # dm-reverb 0.14 publishes no other wheels
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    packages=[*find_packages(include=["sactory", "sactory.*", *PROGRAMS]), "configs"],
    package_data={
        "configs": ["*.gin", "tasks/*.gin", "curricula/*.json"],
        "supervise": ["*.sh", "templates/*"],
        "slurm": ["*.sh", "*.sbatch", "*.ini"],
    },
    entry_points={"console_scripts": ["sactory = sactory.cli:command"]},
    zip_safe=False,
)
