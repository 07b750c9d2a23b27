"""Dashboards, and the variables, links and annotations that they have in common."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model
from panels import DATASOURCE, Builder

# Links and annotations have ``placement(None)``: they stand on top. The SDK would hide them in a
# menu of newer Grafanas.


def variable(name: str, label: str, query: str, *, every: str = ".*", regex: str = "") -> Builder:
    """A variable that has every value of a label, several of which can be chosen."""
    return (
        _asked(name, label, query, regex)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(every)
        .current(model.VariableOption(text=["All"], value=["$__all"]))
    )


def one(name: str, label: str, query: str, *, regex: str = "") -> Builder:
    """A variable of which one value is chosen."""
    return _asked(name, label, query, regex).multi(multi=False).include_all(include_all=False)


def _asked(name: str, label: str, query: str, regex: str) -> Builder:
    built = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )
    return built.regex(regex) if regex else built


def _exporters(label: str, matchers: str = "") -> str:
    """Values of a label of the exporters that are scraped, whether they can poll or not."""
    return f"label_values(modelarts_exporter_build_info{matchers}, {label})"


def _targets(label: str, matchers: str) -> str:
    """Values of a label of their targets, whether a poll has succeeded or not."""
    return f"label_values(modelarts_exporter_poll_duration_seconds_count{{{matchers}}}, {label})"


def scrape_variables() -> list[Builder]:
    """The data source, and which exporters and targets are looked at."""
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        variable("job", "Job", _exporters("job"), every=".+"),
        variable("instance", "Instance", _exporters("instance", '{job=~"$job"}'), every=".+"),
        variable("region", "Region", _targets("region", 'job=~"$job", instance=~"$instance"')),
        variable(
            "project",
            "Project",
            _targets("project", 'job=~"$job", instance=~"$instance", region=~"$region"'),
        ),
    ]


def console_variable() -> Builder:
    """Where the service's console is, for links to jobs there."""
    address = "https://console.huaweicloud.com"
    return (
        dashboard.TextBoxVariable("console")
        .label("Console")
        .description("Where links to a job lead, e.g. https://console-intl.huaweicloud.com")
        .default_value(address)
        .current(model.VariableOption(text=address, value=address))
    )


def annotation(
    name: str, expr: str, *, color: str, title: str, text: str, tags: str = ""
) -> Builder:
    """Marks at the times (in milliseconds) that a query has as values."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(enable=True)
        .icon_color(color)
        .placement(None)
        .expr(expr)
        .step("60s")
        .title_format(title)
        .text_format(text)
        .tag_keys(tags)
        .use_value_for_time(use_value_for_time=True)
    )


def board(
    name: str,
    title: str,
    text: str,
    *,
    since: str,
    refresh: str,
    variables: Sequence[Builder],
    sections: Mapping[str, Sequence[Builder]],
    annotations: Sequence[Builder] = (),
) -> model.Dashboard:
    """A dashboard: sections from top to bottom, in each the panels line by line."""
    built = (
        dashboard.Dashboard(f"ModelArts / {title}")
        .uid(f"modelarts-{name}")
        .description(text)
        .tags(["modelarts", "training"])
        .readonly()
        .time(since, "now")
        .timezone("browser")
        .refresh(refresh)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(list(variables))
        .annotations(list(annotations))
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .icon("external link")
            .tooltip("The other ModelArts dashboards, with the same variables and time")
            .tags(["modelarts"])
            .placement(None)
            .as_dropdown(as_dropdown=False)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )
    for heading, panels in sections.items():
        built.with_row(dashboard.Row(heading))
        for panel in panels:
            built.with_panel(panel)
    done = built.build()
    for number, panel in enumerate(done.panels, 1):
        panel.id_val = number
    return done
