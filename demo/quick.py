"""Imported before Gradio, so that the page starts sooner: it leaves out what no page needs."""

import inspect
import sys
from unittest.mock import patch

from demo.sweeper import use_own_folder

use_own_folder()

# Gradio loads it at the first click, where it is installed; no plot here needs it.
sys.modules.setdefault("matplotlib", None)

# Gradio writes the type stubs of its components anew at every import, a third of the time that an
# import takes, but for components whose source is in no file.
with patch.object(inspect, "getfile", side_effect=OSError("no stubs are needed")):
    import gradio  # noqa: F401
