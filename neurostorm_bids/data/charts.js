// Draw each figure of the class "chart" by Plotly, in place of its picture, as soon as it comes
// near: many points at once would make a reader wait. Texts of a chart are escaped for Plotly already, but for those of a key "label".
// Nothing here may ask the network for anything.
"use strict";

const COLOURS = ["#0060a8", "#b03a00", "#6a2c91", "#00735c", "#8a6100", "#1b1b1b"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];
const MISSING_COLOUR = "#8c8c8c";
const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

function layOut(own) {
  const layout = {
    font: { family: "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif", size: 13, color: "#1b1b1b" },
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
    height: 380,
    margin: { l: 60, r: 20, t: 36, b: 55 },
    hovermode: "closest",
    hoverlabel: { bgcolor: "#fff", bordercolor: "#5c5c5c", font: { color: "#1b1b1b" } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    bargap: 0.04,
    ...own,
  };
  for (const [name, axis] of Object.entries(layout)) {
    if (/^[xy]axis\d*$/.test(name)) {
      layout[name] = { gridcolor: "#e2e2e2", zeroline: false, linecolor: "#8c8c8c", automargin: true, ...axis };
    }
  }
  return layout;
}

function pick(values, places) {
  return places.map((place) => values[place]);
}

function colourByNumber(map, colouring, points) {
  const known = colouring.numbers.flatMap((value, place) => (value === null ? [] : [place]));
  const colours = pick(colouring.numbers, known);
  const marker = {
    size: 8, color: colours, colorscale: "Viridis", line: { width: 0.5, color: "#fff" },
    colorbar: { title: { text: colouring.title, side: "right" }, thickness: 14 },
  };
  const text = known.map((place) => `${map.texts[place]}<br>${colouring.title}: ${colouring.numbers[place]}`);
  return [traceMissing(map, colouring, points, (place) => colouring.numbers[place] === null),
    { ...points(known), marker, text, showlegend: false }];
}

function colourByName(map, colouring, points) {
  const traces = colouring.names.map((name, code) => {
    const own = colouring.codes.flatMap((other, place) => (other === code ? [place] : []));
    const marker = {
      size: 8, color: COLOURS[code % COLOURS.length],
      symbol: SYMBOLS[(code + Math.floor(code / COLOURS.length)) % SYMBOLS.length],
      line: { width: 0.5, color: "#fff" },
    };
    const text = own.map((place) => `${map.texts[place]}<br>${colouring.title}: ${name}`);
    return { ...points(own), marker, text, name, showlegend: true };
  });
  return [traceMissing(map, colouring, points, (place) => colouring.codes[place] < 0), ...traces];
}

function traceMissing(map, colouring, points, isMissing) {
  const places = map.texts.flatMap((_, place) => (isMissing(place) ? [place] : []));
  const text = places.map((place) => `${map.texts[place]}<br>${colouring.title}: n/a`);
  const marker = { size: 7, color: "#fff", symbol: "circle", line: { width: 1.5, color: MISSING_COLOUR } };
  return { ...points(places), marker, text, name: "n/a", showlegend: true, visible: places.length > 0 };
}

function drawMap(place, map, projection, colouring) {
  const points = (places) => ({
    type: "scatter", mode: "markers", hoverinfo: "text",
    x: pick(projection.x, places), y: pick(projection.y, places),
  });
  const traces = colouring.numbers
    ? colourByNumber(map, colouring, points) : colourByName(map, colouring, points);
  const layout = layOut({
    height: 520, xaxis: { title: { text: projection.xtitle } }, yaxis: { title: { text: projection.ytitle } },
  });
  return Plotly.react(place, traces, layout, CONFIG);
}

function addSelector(bar, caption, options, onChange) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  options.forEach(({ label: text }, value) => select.add(new Option(text, value)));
  select.addEventListener("change", onChange);
  label.append(`${caption} `, select);
  bar.append(label, " ");
  return select;
}

function showMap(place, map) {
  const bar = document.createElement("p");
  bar.className = "filter";
  const selects = [];
  const draw = () => {
    const [colouring, projection] = selects.map((select) => Number(select.value));
    return drawMap(place, map, map.projections[projection ?? 0], map.colourings[colouring]);
  };
  selects.push(addSelector(bar, "Coloured by", map.colourings, draw));
  if (map.projections.length > 1) {
    selects.push(addSelector(bar, "Projection", map.projections, draw));
  }
  place.before(bar);
  return draw();
}

function drawChart(figure) {
  const place = figure.querySelector(".plot");
  const chart = JSON.parse(figure.querySelector("script").textContent);
  place.hidden = false;
  figure.classList.add("drawn");
  if (chart.projections) {
    showMap(place, chart);
  } else {
    Plotly.newPlot(place, chart.data, layOut(chart.layout), CONFIG);
  }
}

const NEAR = "800px";
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      watcher.unobserve(target);
      drawChart(target);
    }
  }
}, { rootMargin: NEAR });
document.querySelectorAll("figure.chart").forEach((figure) => watcher.observe(figure));
