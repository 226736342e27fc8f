"""The Train tab as its tests use it, and the runs that they find there."""

import time
from pathlib import Path

from PIL import Image

from diffusion.runs import Run
from diffusion.train_config import TrainConfig

SMALLEST = {"size": 16, "widths": (16, 32), "batch": 4, "T": 50, "threads": 1}
CALLS = "**/component_server/**"  # of the page's scripts to their server
ESTIMATED = "document.querySelector('.estimate .words').textContent.includes('images/s here')"
DETAILED = "document.querySelector('.scrub').disabled"  # where there is one preview or none


class Tab:
    """The Train tab on a page."""

    def __init__(self, page, url):
        self.page = page
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open(url)

    def open(self, url):
        self.page.goto(url + "#train")
        self.page.wait_for_selector("#pill", state="attached")
        self.page.wait_for_selector(".train .start")

    def wait(self, script, timeout=120_000):
        self.page.wait_for_function(script, timeout=timeout)

    def watch(self, name):
        self.page.click(f".runs li[data-run={name}] button")
        self.page.wait_for_selector(f".runs li[data-run={name}] [aria-current=true]")

    def sheet(self):
        """Images of the preview on show."""
        return int(self.page.get_attribute(".sheet canvas", "data-images") or -1)

    def text(self, selector):
        return self.page.inner_text(f".train {selector}")

    def seen(self):
        return int(self.text("dd.images").split("/")[0].replace(",", ""))

    def shows(self, selector):
        return self.page.is_visible(f".train {selector}")

    def focused(self):
        """Classes of what has the keyboard."""
        return self.page.evaluate("document.activeElement.className").split()


def put(runs, name, previews=(), model=False):
    """A run as one finds it after its trainer, of another browser, has ended."""
    run = Run(runs / name)
    run.create("pixel-art", TrainConfig(images=1000, **SMALLEST))
    run.previews.folder.mkdir()
    for images in previews:
        Image.new("RGB", (68, 68), (0, images, 0)).save(run.previews.folder / f"{images:07d}.png")
    if model:
        run.model_folder.mkdir()
        (run.model_folder / "config.json").write_text("{}")
        run.checkpoint_path.touch()
    run.write_status("stopped", max(previews, default=0))
    return run


def folders(root):
    return [path for path in root.iterdir() if path.name[0] != "."]


def pictures(folder: Path, count: int) -> list[str]:
    """Files of so many small pictures."""
    names = [str(folder / f"face{i}.png") for i in range(count)]
    for i, name in enumerate(names):
        Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(name)
    return names


def sheet_of(images):
    return f"document.querySelector('.sheet canvas').dataset.images === '{images}'"


def calls(page, function):
    """What the page asks of that function of the server, from now on: a list that grows."""
    sent = []

    def note(request):
        data = request.post_data or ""
        if f'"fn_name":"{function}"' in data:
            sent.append(data)

    page.on("request", note)
    return sent


class Held:
    """The first call of the server that says so is held until it may go on."""

    def __init__(self, page, words):
        self.page, self.words, self.routes, self.lost = page, words, [], False
        page.route(CALLS, self.handle)

    def handle(self, route):
        if self.words not in (route.request.post_data or ""):
            route.continue_()
        elif self.lost:
            route.abort()
        elif self.routes:
            route.continue_()
        else:
            self.routes.append(route)

    def wait(self):
        end = time.monotonic() + 30
        while not self.routes and time.monotonic() < end:
            self.page.wait_for_timeout(20)

    def go_on(self):
        self.routes[0].continue_()

    def lose(self):
        """It, and whenever it is sent again."""
        self.lost = True
        self.routes[0].abort()
