"""Dashboards, and their common variables, links and annotations."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model
from panels import DATASOURCE, Builder

# Links and annotations have ``placement(None)``, which puts them at the top. The SDK's default hides
# them in a menu in newer Grafana versions.


def variable(name: str, label: str, query: str, *, every: str = ".*", regex: str = "") -> Builder:
    """A multi-value variable with all values of a label."""
    return (
        _query_variable(name, label, query, regex)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(every)
        .current(model.VariableOption(text=["All"], value=["$__all"]))
    )


def single_variable(name: str, label: str, query: str, *, regex: str = "") -> Builder:
    """A single-value variable."""
    return (
        _query_variable(name, label, query, regex).multi(multi=False).include_all(include_all=False)
    )


def _query_variable(name: str, label: str, query: str, regex: str) -> Builder:
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
    """Values of a label of all scraped exporters, even if their polls fail."""
    return f"label_values(modelarts_exporter_build_info{matchers}, {label})"


def _targets(label: str, matchers: str) -> str:
    """Values of a label of all targets, even if no poll has succeeded."""
    return f"label_values(modelarts_exporter_poll_duration_seconds_count{{{matchers}}}, {label})"


def scrape_variables() -> list[Builder]:
    """Variables that select the data source, exporters and targets."""
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
    """The base URL of the ModelArts console, for links to jobs."""
    address = "https://console.huaweicloud.com"
    return (
        dashboard.TextBoxVariable("console")
        .label("Console")
        .description("Base URL of links to jobs, for example https://console-intl.huaweicloud.com")
        .default_value(address)
        .current(model.VariableOption(text=address, value=address))
    )


def annotation(
    name: str, expr: str, *, color: str, title: str, text: str, tags: str = ""
) -> Builder:
    """Annotations at the times given by a query's values, in milliseconds."""
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
    """A dashboard of sections; the panels of a section are laid out row by row."""
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
