import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from exporter.commands.parser import help_text as command_help
from exporter.settings.load import load
from exporter.settings.options import options
from exporter.settings.problems import dotted
from exporter.settings.yaml import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for where in ("*.md", "docs/**/*.md", "deploy/**/*.md", "grafana/*.md", "benchmarks/*.md")
    for path in ROOT.glob(where)
)
PROSE = [
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    *(
        f"docs/{name}.md"
        for name in (
            *("README", "migration", "faq", "troubleshooting", "backfill"),
            *("configuration", "metrics", "how-it-counts", "architecture", "dependencies"),
        )
    ),
]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "HERE", tmp_path)
    return tmp_path


def test_generated_pages_are_current(generate):
    assert [path.name for path in generate.stale()] == [], "run python docs/generate.py"


def test_pages_are_written_once_and_then_current(generate, copy, capsys):
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is stale") == 2
    assert generate.main([]) == 0
    assert sorted(path.name for path in copy.iterdir()) == ["configuration.md", "metrics.md"]
    assert generate.main(["--check"]) == 0
    capsys.readouterr()
    assert generate.main([]) == 0
    assert capsys.readouterr().out == ""


def test_check_names_the_stale_page_and_leaves_it(generate, copy, capsys):
    generate.main([])
    page = copy / "configuration.md"
    page.write_bytes(page.read_bytes() + b"\n")
    before = page.read_bytes()
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "docs/configuration.md is stale: run python docs/generate.py\n"
    )
    assert page.read_bytes() == before


@pytest.mark.integration
def test_the_script_runs_by_itself():
    # With the directory of the package that is tested, be it the checkout or an installed wheel.
    found = str(Path(sys.modules["exporter"].__file__).parents[1])
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        env={"PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_is_in_the_page():
    page = (ROOT / "docs/configuration.md").read_text()
    for option in options():
        assert f"| `{option.name}` |" in page


def columns(line):
    """How wide a line is; Chinese characters take two columns."""
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in line)


@pytest.mark.parametrize("name", PROSE)
def test_prose_fits_into_120_columns(name):
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if columns(line) > 120 and not line.startswith("|")] == []


def test_examples_of_the_page_work(tmp_path):
    page = (ROOT / "docs/configuration.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        (tmp_path / "sk").write_text("x")
        file = tmp_path / "exporter.yml"
        file.write_text(re.sub(r"/run/secrets/\S+", "sk", example))
        region = [] if "region:" in example else ["--target.region=cn-north-4"]
        settings = load(["--config.file", str(file), *region], {})
        assert len(settings.all_targets()) == (2 if "targets:" in example else 1)


def test_options_named_in_prose_exist(generate):
    text = generate.CONFIGURATION + generate.SIGN_IN
    groups = {option.path[0] for option in options()} - {"targets"}
    named = set(re.findall(rf"`((?:{'|'.join(groups)})\.[a-z_.]+)`", text))
    flags = set(re.findall(r"`(--[a-z][a-z._-]+)", text))
    variables = set(re.findall(r"(MODELARTS_EXPORTER_[A-Z]+__[A-Z_]+)", text))
    known = options()
    assert named
    assert named <= {option.name for option in known}
    spelled = {option.flag for option in known} | {option.no_flag for option in known}
    assert {flag.replace("_", "-") for flag in flags} <= spelled
    assert variables <= {option.variable for option in known}


def test_examples_have_no_keys_twice():
    for text in re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL
    ):
        assert [dotted(path) for path, _ in parse(text.encode()).duplicates] == []
        assert parse(text.encode()).value == yaml.safe_load(text)


# --- A query for every metric ---------------------------------------------------------------------


def test_every_family_has_a_query(generate):
    names = [name for rows in generate.families().values() for name, *_ in rows]
    assert [*generate.QUERIES] == names


def test_queries_are_in_the_page_in_one_piece(generate):
    page = (ROOT / "docs/metrics.md").read_text()
    cells = re.findall(r"^\| `(\w+)` \| [^|`]*(?:`[^|`]*`[^|`]*)?\| `(.*)` \|$", page, re.MULTILINE)
    shown = {name: query.replace(r"\|", "|") for name, query in cells}
    assert shown == {name: query.promql for name, query in generate.QUERIES.items()}


def test_queries_ask_for_their_metric_and_for_nothing_unknown(generate):
    types = {name: kind for rows in generate.families().values() for name, kind, *_ in rows}
    known = set(types)
    for name, kind in types.items():
        if kind == "histogram":
            known |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    for name, query in generate.QUERIES.items():
        asked = set(re.findall(r"\bmodelarts_\w+", query.promql))
        assert asked <= known, name
        suffixes = ("bucket", "sum", "count") if types[name] == "histogram" else ()
        assert asked & {name, *(f"{name}_{suffix}" for suffix in suffixes)}, name
        rates = set(re.findall(r"\b(?:rate|increase)\((\w+)", query.promql))
        assert {each for each in rates if types.get(each) == "gauge"} == set(), name


@pytest.mark.integration
def test_queries_parse(generate, tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        assert os.environ.get("REQUIRE_PROMETHEUS") != "1", "promtool is missing"
        pytest.skip("no promtool")
    rules = [
        {"record": f"example:{name}", "expr": query.promql}
        for name, query in generate.QUERIES.items()
    ]
    file = tmp_path / "examples.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


# --- Links ----------------------------------------------------------------------------------------


def prose(path):
    """A page without its code."""
    text = re.sub(r"<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"^ *(```|~~~).*?^ *\1 *$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", text)


def anchors(path):
    """The anchors of a page, as GitHub makes them of its headings."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1 *$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


def links(path):
    """Where a page leads to within the project."""
    text = prose(path)
    found = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", text)
    found += re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.MULTILINE)
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def test_pages_are_found():
    names = {str(path.relative_to(ROOT)) for path in PAGES}
    assert {"README.md", "README.zh-CN.md", "docs/README.md", "docs/runbooks/README.md"} <= names
    assert sum(len(links(path)) for path in PAGES) > 100


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    lost = []
    for target in links(path):
        name, _, anchor = unquote(target).partition("#")
        page = (path.parent / name).resolve() if name else path
        inside = page.is_relative_to(ROOT.resolve()) and page.exists()
        if not inside or (anchor and page.suffix == ".md" and anchor not in anchors(page)):
            lost.append(target)
    assert lost == []


def test_pictures_are_shown_and_small():
    pictures = {*(ROOT / "docs/images").iterdir()}
    shown = {(path.parent / target).resolve() for path in PAGES for target in links(path)}
    assert {path.resolve() for path in pictures} <= shown
    assert [path.name for path in pictures if path.stat().st_size > 250_000] == []


def test_every_page_can_be_reached_from_the_index():
    index = ROOT / "docs/README.md"
    seen, todo = set(), [index]
    while todo:
        page = todo.pop()
        if page not in seen:
            seen.add(page)
            linked = ((page.parent / target.partition("#")[0]).resolve() for target in links(page))
            todo += [each for each in linked if each.suffix == ".md" and each.is_file()]
    assert {path.resolve() for path in PAGES} - {path.resolve() for path in seen} == set()


def test_both_languages_lead_to_each_other_and_have_the_same_parts():
    pages = {name: (ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md")}
    english, chinese = pages.values()
    assert "(README.zh-CN.md)" in "".join(english.splitlines(keepends=True)[:5])
    assert "(README.md)" in "".join(chinese.splitlines(keepends=True)[:5])
    levels = [re.findall(r"^#+(?= )", prose(ROOT / name), re.MULTILINE) for name in pages]
    assert levels[0] == levels[1]
    blocks = [
        re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE) for text in pages.values()
    ]
    bare = [[re.sub(r" *#.*", "", block) for block in each] for each in blocks]
    assert bare[0] == bare[1]
    others = [
        {target for target in links(ROOT / name) if not target.startswith("README")}
        for name in pages
    ]
    assert others[0] == others[1]


# --- Commands to paste ----------------------------------------------------------------------------


def shell_blocks(path):
    """The blocks of a page that are pasted into a shell, without their comments."""
    for text in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE):
        yield re.sub(r"(?:^|\s+)# .*", "", text.replace("\\\n", " "), flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_command_is_installed_before_it_is_used(name):
    text = (ROOT / name).read_text()
    blocks = [*shell_blocks(ROOT / name)]
    (installs,) = [number for number, block in enumerate(blocks) if "pipx install ." in block]
    uses = [
        number
        for number, block in enumerate(blocks)
        if re.search(r"^modelarts-exporter\b", block, re.MULTILINE)
    ]
    assert installs < min(uses)
    check, *_ = re.findall(r"^modelarts-exporter.*", "\n".join(blocks), re.MULTILINE)
    assert check == "modelarts-exporter check"
    for way in ("uv tool install .", "/bin/pip install .", ".venv/bin/modelarts-exporter"):
        assert f"{way}`" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_can_be_pasted(path):
    text = path.read_text()
    for block in shell_blocks(path):
        assert not re.search(r"^pip install", block, re.MULTILINE), "refused by Debian 12"
        # Nothing is started before what the block has created is edited.
        creates = "real.env.example" in block or "exporter.yml.example" in block
        assert not (creates and re.search(r"\b(enable --now|compose up|start) ", block)), block
    for port in re.findall(r"-p (\S*:\d+)(?= )", "\n".join(shell_blocks(path))):
        assert port.startswith("127.0.0.1:"), "names of users and jobs, without a password"
    assert "# then edit" not in text


def test_the_dockerfile_publishes_on_this_machine_only():
    (line,) = re.findall(r"^# (docker run .*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert "-p 127.0.0.1:9978:9978 " in line
    assert line.endswith(" demo --web.listen-address=0.0.0.0:9978")


def test_recipes_of_check_have_options_that_exist():
    text = (ROOT / "deploy/README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"(?:modelarts-exporter|exporter) check((?: +--\S+)*)", text)
    flags = {flag.split("=")[0] for flags in commands for flag in flags.strip("`").split()}
    assert len(commands) > 4
    assert flags <= {option.flag for option in options()} | CHECK_FLAGS
    for recipe in ("kubectl --namespace monitoring exec ", "compose run --rm exporter check"):
        assert recipe in text
    start = text.index("systemctl enable --now modelarts-exporter")
    assert text.index("systemctl start modelarts-exporter-check\n") < start


def test_all_pages_give_the_same_speed_of_a_sweep():
    # Measured with `simulate`: 203 jobs a second with page offsets and 5 requests a second.
    (timeout,) = [option for option in options() if option.name == "poll.sweep_timeout"]
    for text, found in (
        ((ROOT / "docs/troubleshooting.md").read_text(), "about 200 a second"),
        ((ROOT / "docs/how-it-counts.md").read_text(), "about 200 jobs a second"),
        ((ROOT / "docs/runbooks/ModelArtsExporterSweepsFailing.md").read_text(), "200 a second"),
        ((ROOT / "deploy/helm/modelarts-exporter/values.yaml").read_text(), "second per 200 jobs"),
        (timeout.help, f"{200 * 30 * 60:,} jobs"),
    ):
        assert found in text


# --- Scraping -------------------------------------------------------------------------------------


def yaml_examples():
    """Every YAML document that the project shows or ships, as far as it is plain YAML."""
    for path in PAGES:
        for text in re.findall(
            r"^ *```ya?ml\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE
        ):
            yield path, textwrap.dedent(text)
    for path in ROOT.glob("deploy/**/*.y*ml"):
        if "templates" not in path.parts:  # tests/deploy/test_deploy_chart.py renders these
            yield path, path.read_text()


def scrapes(document):
    """The scrape jobs of a document that scrape the exporter."""
    if not isinstance(document, dict):
        return
    if document.get("kind") in ("ServiceMonitor", "PodMonitor"):
        spec = document["spec"]
        yield from spec.get("endpoints", spec.get("podMetricsEndpoints"))
    for job in document.get("scrape_configs") or ():
        if ":9978" in str(job) or job["job_name"] == "modelarts":
            yield job


def test_scrape_examples_keep_the_labels_of_the_exporter():
    found = [
        (str(path.relative_to(ROOT)), job)
        for path, text in yaml_examples()
        if "scrape_configs" in text or "Monitor" in text
        for document in yaml.safe_load_all(text)
        for job in scrapes(document)
    ]
    assert {name for name, _ in found} >= {
        "README.md",
        "README.zh-CN.md",
        "deploy/compose/prometheus.yml",
        "deploy/helm/modelarts-exporter/README.md",
        "deploy/kubernetes/servicemonitor.yaml",
        "docs/web-configuration.md",
    }
    lacking = [
        name for name, job in found if not job.get("honor_labels", job.get("honorLabels", False))
    ]
    assert lacking == [], "a label such as region of the scrape job would replace the exporter's"


# --- What the pages say of the code ---------------------------------------------------------------


def spans(name):
    """The code in the prose of a page of docs/."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


CHECK_FLAGS = {"--offline", "--output", "--quick"}
HAND_WRITTEN = [
    *(f"docs/{name}.md" for name in ("migration", "faq", "troubleshooting", "backfill")),
    "README.md",
    "README.zh-CN.md",
]


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_options_and_metrics_in_pages_exist(generate, name):
    known = options()
    groups = {option.path[0] for option in known} - {"targets"}
    names = {option.name for option in known}
    families = {each for rows in generate.families().values() for each, *_ in rows}
    backfill = set(re.findall(r"--[a-z-]+", command_help("backfill")))
    for span in spans(name):
        for option in re.findall(rf"(?<![\w./-])(?:{'|'.join(groups)})\.[a-z_.]+[a-z]", span):
            assert option in names or any(each.startswith(f"{option}.") for each in names), span
        for metric in re.findall(r"\bmodelarts_(?:up\b|(?:training|exporter)_\w+)", span):
            plain = re.sub(r"_(?:bucket|sum|count)$", "", metric)
            assert metric in families or plain in families, span
        for flag in re.findall(r"(?<!\S)--[a-z][a-z.-]+", span):
            assert flag in {option.flag for option in known} | {
                option.no_flag for option in known
            } | {"--read-only", "--cap-drop", "--help", "--version", *backfill, *CHECK_FLAGS}, span
        for variable in re.findall(r"MODELARTS_EXPORTER_[A-Z_]+", span):
            assert variable in {option.variable for option in known}, span


def definitions(source):
    """The names of all functions and classes of a module; methods as ``Class.method``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield from (
                f"{node.name}.{inner.name}" for inner in node.body if hasattr(inner, "name")
            )
        if hasattr(node, "name"):
            yield node.name


def test_modules_and_names_in_the_architecture_exist():
    package = Path(sys.modules["exporter"].__file__).parent
    text = (ROOT / "docs/architecture.md").read_text()
    modules = {name for name in re.findall(r"`((?:\w+/)+\w+\.py)`", text) if "tests/" not in name}
    named = re.findall(r"`((?:\w+/)+\w+\.py)`,\s+`([\w.]+)`", text)
    assert len(named) > 20
    lost = {name for name in modules if not (package / name.removeprefix("exporter/")).is_file()}
    assert lost == set()
    for module, name in named:
        assert name in {*definitions((package / module).read_text())}, module


def messages():
    """All texts in the code of the exporter, cut where something is filled in."""
    package = Path(sys.modules["exporter"].__file__).parent
    for path in package.rglob("*.py"):
        if "simulator" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from re.split(r"%(?:s|d|\.0f)", node.value)


def test_messages_in_troubleshooting_are_those_of_the_code():
    # In code with a "…", and in tables whose first column is "message".
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = {span for span in spans("docs/troubleshooting.md") if "…" in span}
    for table in re.findall(r"^\| message \|.*\n(?:\|.*\n)+", page, re.MULTILINE):
        for row in table.splitlines()[2:]:
            quoted |= set(re.findall(r"`([^`]+)`", row.split(" | ")[0]))
    texts = [*messages()]
    parts = {
        part.strip()
        for span in quoted
        for part in re.split(r"…|modelarts:\w+:\w+|target\.endpoint", span)  # filled in, too
        if part.strip(" ;:,")
    }
    assert len(parts) > 40
    assert [part for part in sorted(parts) if not any(part in text for text in texts)] == []
