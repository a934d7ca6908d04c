"""Stands in for the package of this name, with which llama.cpp's tests fetch models."""


def download(url, out=None):
    raise OSError(f"{url} is not fetched")
