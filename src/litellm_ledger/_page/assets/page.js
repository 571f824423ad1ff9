// Draws the charts of a report page with Chart.js.  All figures and words come from the page's own
// data; colours come from the style sheet, so that light and dark follow the reader's system.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = matchMedia("(max-width: 760px)");
  const dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
  const short = {
    usd: (v) => v === 0 ? "$0" : v >= 1000 ? "$" + compact(v) : "$" + +v.toPrecision(3),
    tokens: (v) => compact(v),
    calls: (v) => Number.isInteger(v) ? compact(v) : "",
    ms: (v) => v === 0 ? "0" : v >= 1000 ? +(v / 1000).toPrecision(3) + " s" : v + " ms",
  };
  function compact(value) {
    return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
  }
  const keys = Chart.defaults.plugins.legend.labels.generateLabels;
  const dashed = (shown) => (key) =>
    ({ ...key, lineDash: shown.data.datasets[key.datasetIndex].borderDash, lineWidth: 2 });
  function options(chart) {
    const stacked = chart.kind === "stack";
    const grid = { color: color("--line"), drawTicks: false };
    const ticks = { color: color("--quiet"), padding: 6, font: { size: 11 } };
    return {
      animation: false, maintainAspectRatio: false, responsive: true, normalized: true,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          stacked, offset: stacked || chart.labels.length === 1, grid: { display: false }, border: { color: color("--line") },
          ticks: { ...ticks, maxRotation: 0, autoSkipPadding: narrow.matches ? 14 : 22,
                   callback: (_, at) => chart.short[at] },
        },
        y: {
          stacked, beginAtZero: true, border: { display: false }, grid,
          ticks: { ...ticks, maxTicksLimit: 6, callback: (value) => short[chart.unit](value) },
        },
      },
      plugins: {
        legend: {
          display: chart.series.length > 1, position: "bottom", align: "start",
          labels: { color: color("--text"), boxWidth: 12, boxHeight: 12, padding: 12, font: { size: 12 },
                    usePointStyle: !stacked, pointStyleWidth: 30,
                    generateLabels: stacked ? keys : (shown) => keys(shown).map(dashed(shown)) },
        },
        tooltip: {
          itemSort: stacked ? (a, b) => b.raw - a.raw : undefined,
          filter: (item) => !stacked || item.raw !== 0,
          callbacks: {
            title: (items) => items.length ? chart.labels[items[0].dataIndex] : "",
            label: (item) => " " + item.dataset.label + "  " + chart.series[item.datasetIndex].texts[item.dataIndex],
            footer: (items) => stacked && items.length && chart.totals ? "total  " + chart.totals[items[0].dataIndex] : "",
          },
        },
      },
    };
  }
  function series(chart) {
    return chart.series.map((one, at) => {
      const paint = color("--c" + one.color);
      if (chart.kind === "stack") {
        return { label: one.name, data: one.values, backgroundColor: paint, maxBarThickness: 44,
                 borderColor: color("--card"), borderWidth: { top: 1 }, borderSkipped: false,
                 categoryPercentage: .86, barPercentage: .95 };
      }
      return { label: one.name, data: one.values, borderColor: paint, backgroundColor: paint,
               borderWidth: 2, borderDash: dashes[at % dashes.length], spanGaps: true, tension: .25,
               pointStyle: "line", pointRadius: chart.labels.length > 1 ? 0 : 12, pointHoverRadius: 5 };
    });
  }
  const drawn = data.charts.map((chart) => {
    const canvas = document.getElementById("chart-" + chart.id);
    return [chart, new Chart(canvas, {
      type: chart.kind === "stack" ? "bar" : "line",
      data: { labels: chart.labels, datasets: series(chart) },
      options: options(chart),
    })];
  });
  function again() {
    for (const [chart, shown] of drawn) {
      shown.data.datasets = series(chart);
      shown.options = options(chart);
      shown.update("none");
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  narrow.addEventListener("change", again);
  document.documentElement.dataset.drawn = String(drawn.length);
})();
