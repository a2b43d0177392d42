from setuptools import setup

setup(name="pycosat", version="0.6.6+python", py_modules=["pycosat"])
