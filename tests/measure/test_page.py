"""The page of a diagnosis: one file without network, looked at by a real browser where one is installed."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import linger
from linger.measure.charts import rails_of
from linger.measure.page import page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OUTER = """<!doctype html><iframe id="f" style="width:WIDTHpx; height:2000px; border:0" srcdoc="PAGE"></iframe><script>
document.getElementById("f").onload = e => {
  const w = e.target.contentWindow, all = s => [...w.document.querySelectorAll(s)], box = x => x.getBoundingClientRect();
  for (const d of all("details")) d.open = true;
  const root = w.document.documentElement;
  const seen = [w.innerWidth, root.scrollWidth - root.clientWidth,
    all("b, code, p, small").filter(x => x.scrollWidth > x.clientWidth + 1 && x.clientWidth).length,
    all("svg.hist").length, all("svg.hist").filter(s => box(s).width < 100 || box(s).height < 40).length,
    all(".rails").filter(r => Math.abs(box(r).height - box(r.parentElement).height) > 1).length,
    w.performance.getEntriesByType("resource").length];
  document.body.innerHTML = "SEEN " + seen.join(" ");
};
</script>"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.head_with_quite_a_long_name_of_its_own = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.cat([self.left(x), self.right(x) / 64], 1) + x
        return self.head_with_quite_a_long_name_of_its_own(torch.sin(x).mean((2, 3)))


@pytest.fixture(scope="module")
def diagnosis():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        net.head_with_quite_a_long_name_of_its_own.weight.mul_(5000)
    model = linger.init(net)
    with linger.calibration():
        model(x)
    return linger.diagnose(model, x)


class Tags(HTMLParser):
    """Checks that every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_one_file_well_formed_and_without_network(diagnosis, tmp_path):
    diagnosis.save_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.open and tags.count["details"] == len(diagnosis.rows)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|src=|href=|<script", text)
    assert diagnosis._repr_html_() in text
    for f in diagnosis.findings:
        assert f.kind in text


def test_rails_join_who_reads_whom():
    nodes = [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"]), ("e", ["d", "a"]), ("f", ["e"])]
    rails, width = rails_of(nodes)
    assert [(r.at, r.joins, r.passes, r.goes_on) for r in rails] == [
        (0, (), (), True),
        (1, (0,), (0,), True),
        (2, (0,), (0, 1), True),
        (1, (1, 2), (0,), True),
        (0, (0, 1), (), True),
        (0, (0,), (), False),
    ]
    assert width == 3 * 16 + 8


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(diagnosis, tmp_path, width):
    inside = html.escape(page(diagnosis))
    (tmp_path / "outer.html").write_text(OUTER.replace("WIDTH", str(width)).replace("PAGE", inside), encoding="utf-8")
    call = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    call += ["--virtual-time-budget=2000", "--dump-dom", (tmp_path / "outer.html").as_uri()]
    dom = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True).stdout
    inner, beyond, wide, histograms, small, beside, loaded = map(int, re.search(r"SEEN ([\d ]+)", dom)[1].split())
    assert (inner, beyond, wide) == (width, 0, 0)
    assert (histograms, small) == (2 * len(diagnosis.rows), 0)
    assert (beside, loaded) == (0, 0)
