"""The dashboards obey the rules of Grafana's dashboard-linter, its schema, and ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from grafana.dashboards import (
    BOARDS,
    FOLDER,
    QUESTIONS,
    ROOT,
    asked,
    panels,
    selectors,
    variables,
)

SCHEMA = ROOT.parent / "shared/schemas/grafana-dashboard.schema.json"
UNITS = {"none", "short", "percentunit", "bytes", "reqps", "s", "dateTimeAsIso"}
"""Of those that the linter knows, those that are used here."""

PHASE_COLORS = {
    "Creating": "super-light-yellow",
    "Pending": "yellow",
    "Running": "green",
    "Terminating": "light-blue",
    "Completed": "blue",
    "Failed": "red",
    "Terminated": "#8e8e8e",
    "Abnormal": "orange",
    "Unknown": "purple",
}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{name}-{panel['title']}")
        for name, board in BOARDS.items()
        for panel in panels(board)
    ],
)
each_question = pytest.mark.parametrize(
    "question", QUESTIONS, ids=lambda each: f"{each.board}-{each.place}-{each.ref}"
)


def texts(document):
    """Every string in a document."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from texts(value)


def test_there_are_four():
    assert {board["uid"]: board["title"] for board in BOARDS.values()} == {
        "modelarts-fleet": "ModelArts / Fleet overview",
        "modelarts-reliability": "ModelArts / Reliability",
        "modelarts-job": "ModelArts / Job",
        "modelarts-exporter": "ModelArts / Exporter",
    }


@pytest.mark.integration
def test_the_committed_files_are_what_build_py_writes():
    done = subprocess.run(
        [sys.executable, FOLDER / "build.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def schema():
    """Grafana's schema of a dashboard, which lies beside the checkout where CI runs."""
    if not SCHEMA.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SCHEMA} is missing")
        pytest.skip(f"no {SCHEMA}")
    return json.loads(SCHEMA.read_text())


@each_board
def test_grafana_understands_it(board):
    jsonschema.Draft7Validator(schema()).validate(board)


def test_the_schema_finds_misspelt_keys():
    for damage in ({"templatng": {}}, {"panels": [{"type": "stat", "titel": ""}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**BOARDS["fleet"], **damage}, schema())


# --- the linter's rules for dashboards ------------------------------------------------------------


@each_board
def test_it_has_a_data_source_variable_and_knows_no_data_source(board):
    source = variables(board)["datasource"]
    assert (source["type"], source["query"], source["label"]) == (
        "datasource",
        "prometheus",
        "Data source",
    )
    assert "__inputs" not in board
    assert not [text for text in texts(board) if "${DS_" in text]
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    for each in (
        *panels(board),
        *(target for panel in panels(board) for target in panel["targets"]),
        *board["annotations"].get("list", []),
        *(each for each in variables(board).values() if each["type"] == "query"),
    ):
        assert each["datasource"] == wanted


@each_board
@pytest.mark.parametrize(("name", "label"), [("job", "Job"), ("instance", "Instance")])
def test_it_has_variables_for_job_and_instance(board, name, label):
    variable = variables(board)[name]
    assert variable["type"] == "query"
    assert (variable["label"], variable["allValue"]) == (label, ".+")
    assert variable["multi"]
    assert variable["includeAll"]


@each_board
def test_variables_are_asked_again_when_the_time_changes(board):
    names = list(variables(board))
    for name, (function, argument) in asked(board).items():
        assert variables(board)[name]["refresh"] == 2
        used = set(re.findall(r"\$(\w+)", argument)) - {"__range", "1"}
        assert used <= set(names[: names.index(name)]), "in the order in which they depend"
        assert function == "query_result" or re.search(r", \w+$", argument)


@each_board
def test_it_can_be_filtered_where_that_makes_sense(board):
    names = set(variables(board))
    assert names >= {"region", "project"}
    assert board["uid"] == "modelarts-exporter" or names >= {"pool", "flavor_type", "user"}
    matchers = [
        question.expr for question in QUESTIONS if f"modelarts-{question.board}" == board["uid"]
    ]
    for name in names - {"datasource", "console"}:
        in_variables = [argument for _, argument in asked(board).values()]
        assert [text for text in (*matchers, *in_variables) if f'"${name}"' in text], name


@each_board
def test_nobody_edits_it_by_accident(board):
    assert board["editable"] is False
    assert board.get("id") is None
    assert 8 <= len(board["uid"]) <= 40
    assert board["description"]
    assert board["time"]["to"] == "now"
    assert board["refresh"]


# --- panels ---------------------------------------------------------------------------------------


@each_panel
def test_a_newcomer_understands_it(panel):
    assert panel["title"]
    assert len(panel["description"]) >= 20
    assert panel["description"].endswith((".", ")"))
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert panel["targets"]


@each_panel
def test_it_has_a_unit(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@each_panel
def test_legends_are_told_to_be_shown_or_not(panel):
    if panel["type"] in {"timeseries", "state-timeline"}:
        assert panel["options"]["legend"]["showLegend"] is True
    if panel["type"] == "bargauge":
        assert panel["options"]["legend"]["showLegend"] is False


@each_panel
def test_queries_can_be_told_apart(panel):
    refs = [target["refId"] for target in panel["targets"]]
    assert refs == [chr(ord("A") + number) for number in range(len(refs))]
    for target in panel["targets"]:
        assert target.get("instant", False) != target.get("range", False)
        assert (target.get("format") == "table") == (panel["type"] == "table")


@each_panel
def test_thresholds_begin_at_the_bottom_and_climb(panel):
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    assert panel["type"] != "stat" or steps
    if steps:
        assert steps[0]["value"] is None
        values = [step["value"] for step in steps[1:]]
        assert values == sorted(set(values))


def dyed(panel):
    """Names of series and columns with a property of their own → that property."""
    found = {}
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byNames"
        (name,) = override["matcher"]["options"]["names"]
        (found[name],) = override["properties"]
    return found


@each_panel
def test_columns_exist(panel):
    """What is renamed, ordered or linked in a table is in it."""
    if panel["type"] != "table":
        return
    merge, *convert, organize = panel["transformations"]
    assert (merge["id"], organize["id"]) == ("merge", "organize")
    fields = {f"Value #{target['refId']}" for target in panel["targets"]} | {"Time", "Value"}
    labels = set()
    for target in panel["targets"]:
        kept = re.findall(r"(?:sum|max|min|group) by \(([\w, ]+)\)", target["expr"])
        labels |= {label for group in kept for label in group.split(", ")}
    options = organize["options"]
    assert set(options["excludeByName"]) <= fields
    columns = set(options["indexByName"])
    assert columns <= fields | labels
    assert columns & set(options["excludeByName"]) == set()
    assert set(options["renameByName"]) <= columns
    titles = {options["renameByName"].get(name, name) for name in columns}
    assert len(titles) == len(columns)
    assert set(dyed(panel)) <= titles
    for each in convert:
        assert {one["targetField"] for one in each["options"]["conversions"]} <= columns
    linked = set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
    assert linked <= columns - set(options["renameByName"])
    for sort in panel["options"].get("sortBy", []):
        assert sort["displayName"] in titles


def unquoted(expr):
    return re.sub(r'"[^"]*"', "", expr)


# --- queries --------------------------------------------------------------------------------------


@each_question
def test_every_selector_can_be_limited_to_a_job_and_an_instance(question):
    found = selectors(question.expr)
    assert found
    named = re.findall(r"\b(?:modelarts|process|scrape)_\w+|\bup\b", unquoted(question.expr))
    assert sorted(named) == sorted(name for name, *_ in found), "each has matchers"
    for _, matchers, _, _ in found:
        assert 'job=~"$job"' in matchers
        assert 'instance=~"$instance"' in matchers


@each_question
def test_counters_are_never_shown_raw(question):
    for name, _, before, after in selectors(question.expr):
        wrapped = re.search(r"(\w+)\($", before)
        ranged = re.match(r"\[(\$\w+)\]", after)
        if name.endswith(("_total", "_bucket", "_sum")):
            assert wrapped, name
            assert wrapped[1] in {"rate", "increase"}, name
        if wrapped and wrapped[1] == "rate":
            assert ranged[1] == "$__rate_interval"
        if wrapped and wrapped[1] == "increase":
            assert ranged[1] in {"$__rate_interval", "$__range"}


@each_question
def test_its_variables_exist(question):
    built_in = {"__rate_interval", "__range", "1"}
    used = set(re.findall(r"\$\{?(\w+)", question.expr)) - built_in
    assert used <= set(variables(BOARDS[question.board]))


# --- how it looks ---------------------------------------------------------------------------------


@each_board
def test_panels_fill_the_grid_without_gaps_and_overlaps(board):
    taken = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    height = 1 + max(y for _, y in taken)
    assert set(taken) == {(x, y) for x in range(24) for y in range(height)}


@each_board
def test_titles_and_ids_are_unique(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))


@each_board
def test_phases_have_the_same_colors_everywhere(board):
    for panel in panels(board):
        properties = dyed(panel)
        for phase in PHASE_COLORS.keys() & properties.keys():
            if panel["type"] != "table":  # where it is the title of a column
                assert properties[phase]["value"]["fixedColor"] == PHASE_COLORS[phase]
        if {target.get("legendFormat") for target in panel["targets"]} == {"{{phase}}"}:
            assert properties.keys() >= PHASE_COLORS.keys()
        for mapping in panel["fieldConfig"]["defaults"].get("mappings", []):
            shown = {each["text"]: each["color"] for each in mapping["options"].values()}
            for phase in PHASE_COLORS.keys() & shown.keys():
                assert shown[phase] == PHASE_COLORS[phase]


@each_board
def test_links_lead_somewhere_and_take_along_what_they_can(board):
    (others,) = board["links"]
    assert others["type"] == "dashboards"
    assert set(others["tags"]) <= set(board["tags"])
    assert others["includeVars"]
    assert others["keepTime"]
    assert "inControlsMenu" not in set(texts(board)), "links would be hidden in a menu"
    known = {each["uid"]: set(variables(each)) for each in BOARDS.values()}
    for text in texts(board):
        if match := re.match(r"/d/([\w-]+)\?", text):
            assert "${__url_time_range}" in text
            passed = set(re.findall(r"\$\{(\w+):queryparam\}", text))
            assert passed <= set(variables(board))
            assert passed | set(re.findall(r"var-(\w+)=", text)) <= known[match[1]]
        elif "/modelarts/?region=" in text:
            assert "console" in variables(board)


def test_the_readme_names_every_file():
    page = Path(FOLDER / "README.md").read_text()
    assert [name for name in BOARDS if f"`{name}.json`" not in page] == []
