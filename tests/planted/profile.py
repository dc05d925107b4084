"""How Hypothesis looks for planted bugs: finding one is enough, the smallest example is not wanted.

A pytest plugin: it is loaded before the tests, so that their own settings inherit from it.
"""

from hypothesis import Phase, settings

settings.register_profile("planted", phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
settings.load_profile("planted")
