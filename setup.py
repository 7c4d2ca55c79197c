"""Distribution ppfr-sanitizer: packages ppfr_ops, pipelines and schemas."""

from setuptools import find_packages, setup

setup(
    name="ppfr-sanitizer",
    version="0.1.0",
    description="Turn a face dataset into one that can be shared and still be recognised by machines",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["ppfr_ops*", "pipelines*", "schemas*"]),
    include_package_data=True,
    package_data={"ppfr_ops": ["**/*.safetensors", "**/*.yaml", "**/*.md", "**/*.j2"]},
    install_requires=[
        "torch==2.13.0",
        "ray[data,default]>=2.60,<2.61",
        "pyarrow>=25,<26",
        "fsspec>=2026.9",
        "numpy>=2.1,<3",
        "scipy>=1.14,<2",
        "pillow>=12.3,<13",
        "opencv-python-headless>=5.0,<6",
        "onnxruntime>=1.32,<2",
        "kornia>=0.9,<0.10",
        "scikit-image>=0.26,<0.27",
        "scikit-learn>=1.9,<2",
        "matplotlib>=3.9,<4",
        "jinja2>=3.1,<4",
        "click>=8.1,<9",
        "pydantic>=2.10,<3",
        "pyyaml>=6,<7",
        "rich>=13,<16",
        "safetensors>=0.5,<1",
        "cryptography>=44",
    ],
    extras_require={
        "beam": ["apache-beam>=2.77,<2.78"],
        "s3": ["s3fs>=2026.9"],
        "dev": [
            "pytest>=9.2,<10",
            "pytest-timeout>=2.3,<3",
            "hypothesis>=6.100,<7",
            "ruff>=0.9",
            "mypy>=1.14",
            "moto[server]>=5.2,<6",
        ],
    },
    entry_points={"console_scripts": ["ppfr = pipelines.cli:main"]},
)
