"""Plugin of pytest: llama.cpp's tests first fetch the models of all their presets, none of which is
used here. Tests that need these models are left out, and one that llama.cpp skips, since its answers
depend on what is cached, is run."""

import expectations
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    import utils

    utils.ServerPreset.load_all = staticmethod(lambda: None)
    known = expectations.read()
    left_out = [item for item in items if expectations.lookup(item.nodeid, known)[0] == "text"]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        if item.name == "test_cache_vs_nocache_prompt":
            item.own_markers = [mark for mark in item.own_markers if mark.name != "skip"]
