"use strict";
(() => {
  const source = document.getElementById("viewer-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const root = document.querySelector(".viewer"), grid = root.querySelector(".grid");
  const { rows, cols, places } = data;
  const tall = data.pixel ? data.pixel[0] / data.pixel[1] : 1; // height of a pixel over its width
  const slices = [...new Set(places.map(place => place.slice))];
  const state = { place: 0, draw: 1, low: 0, high: data.white, gain: 1, zoom: 1, x: cols / 2, y: rows / 2, tool: "pan", cursor: null, line: null };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const number = value => { const shown = value * data.unit; return shown === 0 ? "0" : Math.abs(shown) >= 1e4 || Math.abs(shown) < 1e-2 ? shown.toExponential(2) : String(+shown.toPrecision(3)); };

  // ---- What can be seen: images, the standard deviation, and errors against the truth.
  const names = [...new Set(places.flatMap(place => Object.keys(place.images)))];
  const draws = names.filter(name => name.startsWith("draw ")).length;
  const baselines = names.filter(name => name.startsWith("baseline ")).map(name => name.slice(9));
  const known = names.includes("truth");
  const views = [
    { id: "reconstruction", title: `Reconstruction: ${data.estimate}`, kind: "image", of: "reconstruction", score: data.estimate },
    ...(draws ? [{ id: "draw", title: "Draw", kind: "image", of: "draw" }] : []),
    ...baselines.map(title => ({ id: `baseline ${title}`, title, kind: "image", of: `baseline ${title}`, score: title })),
    ...(known ? [{ id: "truth", title: "Ground truth", kind: "image", of: "truth" }] : []),
    ...(names.includes("std") ? [{ id: "std", title: "Standard deviation of the draws", kind: "std", of: "std" }] : []),
    ...(known ? [
      { id: "error reconstruction", title: `Error: ${data.estimate}`, kind: "error", of: "reconstruction" },
      ...(draws ? [{ id: "error draw", title: "Error: draw", kind: "error", of: "draw" }] : []),
      ...baselines.map(title => ({ id: `error ${title}`, title: `Error: ${title}`, kind: "error", of: `baseline ${title}` })),
    ] : []),
  ];
  const byId = Object.fromEntries(views.map(view => [view.id, view]));
  const score = title => parseFloat(data.captions[title]) || 0; // PSNR
  const best = baselines.reduce((one, other) => (one === undefined || score(other) >= score(one) ? other : one), undefined);
  const first = ["reconstruction", "draw", best && `baseline ${best}`, "truth", "std", "error reconstruction", best && `error ${best}`].filter(id => byId[id]);
  const quantity = { image: "Magnitude", std: "Std of real and imaginary part", error: "|Error| of the magnitude" };

  // ---- Decoding: 8 bits hold the root of a value.
  const cache = new Map();
  const stored = name => (name === "draw" ? `draw ${state.draw}` : name);
  function decode(place, name) {
    const key = `${place} ${name}`, url = places[place].images[name];
    if (!url) return Promise.resolve(null);
    if (!cache.has(key)) {
      if (cache.size > 200) cache.clear();
      cache.set(key, new Promise((resolve, reject) => {
        const image = new Image();
        image.onerror = () => reject(new Error(`${key} is damaged`));
        image.onload = () => {
          const canvas = new OffscreenCanvas(cols, rows), pen = canvas.getContext("2d", { willReadFrequently: true });
          pen.drawImage(image, 0, 0);
          const bytes = pen.getImageData(0, 0, cols, rows).data, top = data.tops[name === "std" ? "std" : "image"];
          resolve(Float32Array.from({ length: rows * cols }, (_, at) => top * (bytes[4 * at] / 255) ** 2));
        };
        image.src = url;
      }));
    }
    return cache.get(key);
  }
  async function valuesOf(view) {
    const image = await decode(state.place, stored(view.of));
    if (!image || view.kind !== "error") return image;
    const truth = await decode(state.place, "truth");
    return truth && image.map((value, at) => Math.abs(value - truth[at]));
  }

  // ---- Colours.
  function table(stops) {
    return Array.from({ length: 256 }, (_, at) => {
      const place = at / 255 * (stops.length - 1), low = Math.floor(place), part = place - low, next = Math.min(low + 1, stops.length - 1);
      return stops[low].map((value, channel) => Math.round(value + part * (stops[next][channel] - value)));
    });
  }
  const colours = { image: table([[0, 0, 0], [255, 255, 255]]), std: table(data.colours.std), error: table(data.colours.error) };
  const range = kind => (kind === "image" ? [state.low, state.high] : [0, data.scales[kind] / state.gain]);

  // ---- Panels.
  const panels = first.map((id, at) => {
    const figure = document.createElement("figure");
    figure.className = "view";
    figure.innerHTML = `<div class="head"><select></select><button type="button" aria-pressed="false">⤢</button></div><canvas class="image" role="img"></canvas>
      <figcaption><span class="least"></span><canvas class="ramp" width="256" height="1" aria-hidden="true"></canvas><span class="most"></span><span class="what"></span><span class="here"></span></figcaption>`;
    const [select, button, canvas] = ["select", "button", "canvas.image"].map(what => figure.querySelector(what));
    select.setAttribute("aria-label", `Image in panel ${at + 1}`);
    button.setAttribute("aria-label", `Enlarge panel ${at + 1}`);
    button.title = "Enlarge (f)";
    for (const view of views) select.add(new Option(view.title, view.id, view.id === id, view.id === id));
    grid.append(figure);
    const panel = { figure, select, button, canvas, values: null, buffer: new OffscreenCanvas(cols, rows) };
    select.addEventListener("change", refresh);
    button.addEventListener("click", () => enlarge(panel));
    pointing(panel);
    return panel;
  });
  function enlarge(panel) {
    const on = !panel.figure.classList.contains("large");
    for (const one of panels) { one.figure.classList.toggle("large", on && one === panel); one.button.setAttribute("aria-pressed", String(on && one === panel)); }
    grid.classList.toggle("one", on);
    layout();
  }

  // ---- Drawing: `refresh` decodes, `paint` colours, `place` shows the part that is looked at.
  let turn = 0;
  async function refresh() {
    const mine = ++turn;
    const found = await Promise.all(panels.map(panel => valuesOf(byId[panel.select.value])));
    if (mine !== turn) return;
    panels.forEach((panel, at) => { panel.values = found[at]; });
    paint();
  }
  function paint() {
    for (const panel of panels) {
      const view = byId[panel.select.value], [low, high] = range(view.kind), colour = colours[view.kind];
      const pen = panel.buffer.getContext("2d"), picture = pen.createImageData(cols, rows), bytes = picture.data;
      if (panel.values) for (let at = 0; at < rows * cols; at++) {
        const rgb = colour[clamp(Math.round(255 * (panel.values[at] - low) / (high - low)), 0, 255)];
        bytes[4 * at] = rgb[0]; bytes[4 * at + 1] = rgb[1]; bytes[4 * at + 2] = rgb[2]; bytes[4 * at + 3] = 255;
      }
      pen.putImageData(picture, 0, 0);
      const ramp = panel.figure.querySelector(".ramp").getContext("2d"), strip = ramp.createImageData(256, 1);
      colour.forEach((rgb, at) => strip.data.set([...rgb, 255], 4 * at));
      ramp.putImageData(strip, 0, 0);
      const score = data.captions[view.score], title = view.of === "draw" ? `${view.title} ${state.draw}` : view.title;
      const text = (what, words) => { panel.figure.querySelector(what).textContent = words; };
      text(".least", number(low)); text(".most", number(high));
      text(".what", `${quantity[view.kind]}, ${data.unit_name}${score ? ` · ${score}` : ""}`);
      panel.figure.querySelector(".what").title = panel.figure.querySelector(".what").textContent;
      let sum = 0, most = 0;
      for (const value of panel.values || []) { sum += value * value; most = Math.max(most, value); }
      panel.canvas.setAttribute("aria-label", panel.values
        ? `${title}, ${places[state.place].title}: ${quantity[view.kind]}, root mean square ${number(Math.sqrt(sum / (rows * cols)))}, largest ${number(most)} ${data.unit_name}; shown from ${number(low)} to ${number(high)}`
        : `${title}: not stored in this page`);
    }
    place(); profile();
    output("window", `${number(state.low)} to ${number(state.high)}`);
    root.dataset.shown = `${state.place} ${state.draw}`;
  }
  const scaleOf = canvas => canvas.width / cols * state.zoom; // canvas pixels for a column
  function place() {
    for (const panel of panels) {
      const { canvas } = panel, width = Math.round(canvas.clientWidth * devicePixelRatio);
      if (!width) continue;
      canvas.width = width; canvas.height = Math.round(width * rows * tall / cols);
      const pen = canvas.getContext("2d"), scale = scaleOf(canvas), dot = devicePixelRatio;
      pen.imageSmoothingEnabled = scale < 4 * dot; pen.imageSmoothingQuality = "high";
      pen.setTransform(scale, 0, 0, scale * tall, canvas.width / 2 - scale * state.x, canvas.height / 2 - scale * tall * state.y);
      if (panel.values) pen.drawImage(panel.buffer, 0, 0);
      const at = (x, y) => [canvas.width / 2 + scale * (x - state.x), canvas.height / 2 + scale * tall * (y - state.y)];
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.lineWidth = 1.2 * dot; pen.font = `${12 * dot}px system-ui, sans-serif`;
      if (!panel.values) { pen.fillStyle = "#ccc"; pen.textAlign = "center"; pen.fillText("not stored in this page", canvas.width / 2, canvas.height / 2); continue; }
      if (state.line) { pen.strokeStyle = "#f0e442"; pen.beginPath(); pen.moveTo(...at(state.line[0], state.line[1])); pen.lineTo(...at(state.line[2], state.line[3])); pen.stroke(); }
      if (state.cursor) {
        const [x, y] = at(state.cursor[0], state.cursor[1]);
        pen.strokeStyle = "#56b4e9"; pen.beginPath();
        for (const sign of [-1, 1]) { pen.moveTo(x + sign * 4 * dot, y); pen.lineTo(x + sign * 12 * dot, y); pen.moveTo(x, y + sign * 4 * dot); pen.lineTo(x, y + sign * 12 * dot); }
        pen.stroke();
      }
      marks(pen, canvas, scale, dot);
      const [x, y] = state.cursor ? state.cursor.map(Math.floor) : [-1, -1];
      const inside = x >= 0 && y >= 0 && x < cols && y < rows;
      panel.figure.querySelector(".here").textContent = inside ? `${x}, ${y}: ${number(panel.values[y * cols + x])}` : "";
    }
  }
  function marks(pen, canvas, scale, dot) { // letters of the patient's sides, and a bar of whole centimetres
    pen.fillStyle = "#e6e9ec"; pen.strokeStyle = "#000"; pen.lineWidth = 3 * dot;
    const write = (text, x, y, align, base) => { pen.textAlign = align; pen.textBaseline = base; pen.strokeText(text, x, y); pen.fillText(text, x, y); };
    if (data.edges) {
      const [left, right, top, bottom] = data.edges;
      write(left, 5 * dot, canvas.height / 2, "left", "middle"); write(right, canvas.width - 5 * dot, canvas.height / 2, "right", "middle");
      write(top, canvas.width / 2, 5 * dot, "center", "top"); write(bottom, canvas.width / 2, canvas.height - 5 * dot, "center", "bottom");
    }
    if (data.pixel) {
      const mm = [50, 20, 10, 5, 2, 1].find(length => length / data.pixel[1] * scale < canvas.width / 3) || 1, long = mm / data.pixel[1] * scale;
      const [x, y] = [canvas.width - 8 * dot - long, canvas.height - 8 * dot];
      pen.fillRect(x, y, long, 2 * dot); write(`${mm} mm`, canvas.width - 8 * dot, y - 3 * dot, "right", "bottom");
    }
  }
  function layout() {
    const large = grid.classList.contains("one"), count = large ? 1 : panels.length, narrow = innerWidth < 620;
    const wide = root.clientWidth - 24, high = innerHeight - grid.getBoundingClientRect().top - scrollY - 30;
    let best = [1, 0];
    for (let n = 1; n <= count; n++) {
      const size = Math.min((wide - 6 * n) / n, (high / Math.ceil(count / n) - 78) * cols / (rows * tall));
      if (size > best[1]) best = [n, size];
    }
    if (narrow || best[1] < 150) best = large ? [1, wide] : [Math.min(count, narrow ? 2 : 3), (wide - 18) / Math.min(count, narrow ? 2 : 3)];
    grid.style.gridTemplateColumns = `repeat(${best[0]}, ${Math.floor(best[1])}px)`;
    place(); profile();
  }

  // ---- Pointer: pan, window and level, profile line; wheel and pinch zoom about the finger.
  function pointing(panel) {
    const { canvas } = panel, fingers = new Map();
    let start = null;
    const imagePoint = event => {
      const box = canvas.getBoundingClientRect(), scale = box.width / cols * state.zoom;
      return [state.x + (event.clientX - box.left - box.width / 2) / scale, state.y + (event.clientY - box.top - box.height / 2) / (scale * tall)];
    };
    const zoomAbout = ([x, y], factor) => {
      const zoom = clamp(state.zoom * factor, 1, 24), part = state.zoom / zoom;
      look(x + (state.x - x) * part, y + (state.y - y) * part, zoom);
    };
    canvas.addEventListener("wheel", event => { event.preventDefault(); zoomAbout(imagePoint(event), Math.exp(-event.deltaY / 400)); }, { passive: false });
    canvas.addEventListener("dblclick", () => enlarge(panel));
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      start = { event, x: state.x, y: state.y, low: state.low, high: state.high, at: imagePoint(event) };
      if (state.tool === "profile") setLine([...start.at, ...start.at]);
    });
    canvas.addEventListener("pointermove", event => {
      state.cursor = imagePoint(event);
      if (fingers.size === 2 && fingers.has(event.pointerId)) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1], before = fingers.get(event.pointerId);
        const far = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        return zoomAbout(state.cursor, far([event.clientX, event.clientY]) / Math.max(far(before), 1));
      }
      if (!fingers.has(event.pointerId) || !start) return place();
      const [right, down] = [event.clientX - start.event.clientX, event.clientY - start.event.clientY];
      if (state.tool === "profile") return setLine([...start.at, ...imagePoint(event)]);
      if (state.tool === "window") {
        const width = clamp((start.high - start.low) * Math.exp(right / 200), .01 * data.white, 3 * data.white);
        return setWindow(clamp((start.low + start.high) / 2 - down / 300 * data.white, 0, 2 * data.white), width);
      }
      const scale = canvas.clientWidth / cols * state.zoom;
      look(start.x - right / scale, start.y - down / (scale * tall), state.zoom);
    });
    const up = event => { fingers.delete(event.pointerId); start = null; };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { state.cursor = null; place(); });
  }
  function look(x, y, zoom) {
    state.zoom = zoom;
    const [right, down] = [cols / 2 / zoom, rows / 2 / zoom];
    state.x = clamp(x, right, cols - right); state.y = clamp(y, down, rows - down);
    place();
  }
  const input = name => root.querySelector(`[data-input="${name}"]`);
  const output = (name, text) => { const found = root.querySelector(`[data-output="${name}"]`); if (found) found.textContent = text; };
  function setWindow(level, width) {
    state.low = Math.max(0, level - width / 2); state.high = Math.max(level + width / 2, state.low + .005 * data.white);
    input("level").value = Math.round(100 * level / data.white); input("width").value = Math.round(100 * width / data.white);
    paint();
  }
  for (const name of ["level", "width"]) input(name).addEventListener("input", () => setWindow(input("level").value / 100 * data.white, Math.max(input("width").value, 1) / 100 * data.white));
  input("gain").addEventListener("input", () => { state.gain = 2 ** (input("gain").value / 10); paint(); });
  function reset() {
    state.gain = 1; input("gain").value = 0; setLine(null);
    look(cols / 2, rows / 2, 1); setWindow(data.white / 2, data.white); tool("pan");
    if (grid.classList.contains("one")) enlarge(panels.find(panel => panel.figure.classList.contains("large")));
  }
  root.querySelector('[data-do="reset"]').addEventListener("click", reset);
  function tool(name) {
    state.tool = name;
    for (const button of root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    if (name === "profile" && !state.line) setLine([0, Math.floor(rows / 2) + .5, cols, Math.floor(rows / 2) + .5]);
  }
  for (const button of root.querySelectorAll("[data-tool]")) button.addEventListener("click", () => tool(button.dataset.tool));

  // ---- Steps: slices, frames, draws; each with a slider, and the last two with a film.
  const framesOf = slice => places.map((place, at) => [place, at]).filter(([place]) => place.slice === slice).map(([, at]) => at);
  const longest = Math.max(...slices.map(slice => framesOf(slice).length));
  const steps = {
    slice: { count: slices.length, get: () => slices.indexOf(places[state.place].slice), set: at => {
      const frames = framesOf(slices[at]); state.place = frames[Math.min(steps.frame.get(), frames.length - 1)]; } },
    frame: { count: longest, get: () => framesOf(places[state.place].slice).indexOf(state.place), set: at => {
      const frames = framesOf(places[state.place].slice); state.place = frames[at % frames.length]; } },
    draw: { count: draws, get: () => state.draw - 1, set: at => { state.draw = at + 1; } },
  };
  for (const [name, step] of Object.entries(steps)) {
    const box = root.querySelector(`[data-step="${name}"]`), slider = box.querySelector("input"), button = box.querySelector("button");
    box.hidden = step.count < 2;
    slider.max = step.count;
    step.show = () => {
      slider.value = step.get() + 1;
      const words = name === "slice" ? places[state.place].title : `${name} ${step.get() + 1} of ${step.count}`;
      output(name, words); slider.setAttribute("aria-valuetext", words);
    };
    step.go = at => { if (step.count < 2) return; step.set((at + step.count) % step.count); for (const one of Object.values(steps)) one.show(); return refresh(); };
    step.stop = () => { clearInterval(step.timer); step.timer = null; if (button) { button.textContent = "Play"; button.setAttribute("aria-label", `Play the ${name}s`); } };
    step.play = () => {
      if (step.timer) return step.stop();
      button.textContent = "Pause"; button.setAttribute("aria-label", `Pause the ${name}s`);
      if (name === "draw" && panels.every(panel => byId[panel.select.value].of !== "draw")) { panels[0].select.value = "draw"; }
      step.timer = setInterval(() => step.go(step.get() + 1), 300);
    };
    slider.addEventListener("input", () => { step.stop(); step.go(slider.value - 1); });
    if (button) button.addEventListener("click", step.play);
  }

  // ---- The profile along a line, of what the panels show.
  const inks = { reconstruction: "#56b4e9", truth: "#ffffff", other: "#e69f00", draw: "#cc79a7" }, dashes = { truth: [6, 4], other: [2, 3], draw: [9, 3, 2, 3] };
  function setLine(line) {
    state.line = line;
    root.querySelector(".profile").hidden = !line;
    if (line && line[1] === line[3]) input("row").value = Math.floor(line[1]);
    place(); profile();
  }
  input("row").max = rows - 1;
  input("row").addEventListener("input", () => setLine([0, +input("row").value + .5, cols, +input("row").value + .5]));
  root.querySelector('[data-do="no-profile"]').addEventListener("click", () => { setLine(null); tool("pan"); });
  function profile() {
    if (!state.line) return;
    const canvas = root.querySelector(".profile canvas"), dot = devicePixelRatio, [x0, y0, x1, y1] = state.line;
    canvas.width = canvas.clientWidth * dot; canvas.height = canvas.clientHeight * dot;
    const pen = canvas.getContext("2d"), count = Math.max(2, Math.ceil(Math.hypot(x1 - x0, y1 - y0)));
    const sample = values => Array.from({ length: count }, (_, at) => {
      const part = (at + .5) / count, x = clamp(Math.floor(x0 + part * (x1 - x0)), 0, cols - 1), y = clamp(Math.floor(y0 + part * (y1 - y0)), 0, rows - 1);
      return values[y * cols + x];
    });
    const curves = panels.filter(panel => panel.values && byId[panel.select.value].kind === "image").map(panel => {
      const view = byId[panel.select.value], role = view.of === "reconstruction" || view.of === "truth" || view.of === "draw" ? view.of : "other";
      return { title: view.of === "draw" ? `draw ${state.draw}` : view.title, role, values: sample(panel.values) };
    });
    const spread = panels.find(panel => panel.values && byId[panel.select.value].kind === "std"), main = curves.find(curve => curve.role === "reconstruction");
    const std = spread && main ? sample(spread.values) : null;
    const top = Math.max(1e-30, ...curves.flatMap(curve => curve.values)), left = 62 * dot, bottom = 22 * dot;
    const [wide, high] = [canvas.width - left - 8 * dot, canvas.height - bottom - 8 * dot];
    const at = (place, value) => [left + wide * place / (count - 1), 8 * dot + high * (1 - clamp(value / top, 0, 1.05))];
    pen.font = `${11 * dot}px system-ui, sans-serif`; pen.fillStyle = "#a7b0ba"; pen.strokeStyle = "#333a41"; pen.lineWidth = dot;
    for (const part of [0, .5, 1]) {
      const y = at(0, part * top)[1];
      pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + wide, y); pen.stroke();
      pen.textAlign = "right"; pen.textBaseline = "middle"; pen.fillText(number(part * top), left - 6 * dot, y);
    }
    const long = data.pixel ? Math.hypot((x1 - x0) * data.pixel[1], (y1 - y0) * data.pixel[0]) : count, unit = data.pixel ? "mm" : "pixels";
    pen.textBaseline = "top"; pen.textAlign = "left"; pen.fillText("0", left, canvas.height - bottom + 6 * dot);
    pen.textAlign = "right"; pen.fillText(`${long.toFixed(0)} ${unit}`, left + wide, canvas.height - bottom + 6 * dot);
    if (std) {
      pen.fillStyle = "rgba(86, 180, 233, .28)"; pen.beginPath();
      main.values.forEach((value, place) => pen.lineTo(...at(place, value + 2 * std[place])));
      [...main.values.keys()].reverse().forEach(place => pen.lineTo(...at(place, main.values[place] - 2 * std[place])));
      pen.fill();
    }
    for (const curve of curves) {
      pen.strokeStyle = inks[curve.role]; pen.lineWidth = 1.6 * dot; pen.setLineDash((dashes[curve.role] || []).map(length => length * dot));
      pen.beginPath(); curve.values.forEach((value, place) => pen.lineTo(...at(place, value))); pen.stroke();
    }
    pen.setLineDash([]);
    const sign = { reconstruction: "———", truth: "– – –", other: "· · ·", draw: "— · —" };
    root.querySelector(".profile .names").textContent = curves.map(curve => `${sign[curve.role]} ${curve.title}`).join("    ") + (std ? "    band: ± 2 std" : "");
    canvas.setAttribute("aria-label", `Profile of ${long.toFixed(0)} ${unit} in ${places[state.place].title}: ${curves.map(curve => `${curve.title} from ${number(Math.min(...curve.values))} to ${number(Math.max(...curve.values))}`).join("; ")}`);
  }

  // ---- Keys.
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.target.tagName === "BUTTON" && /^( |Enter)$/.test(event.key)) return;
    const shift = 30 / state.zoom, does = {
      ArrowUp: () => (event.shiftKey ? look(state.x, state.y - shift, state.zoom) : steps.slice.go(steps.slice.get() - 1)),
      ArrowDown: () => (event.shiftKey ? look(state.x, state.y + shift, state.zoom) : steps.slice.go(steps.slice.get() + 1)),
      ArrowLeft: () => (event.shiftKey ? look(state.x - shift, state.y, state.zoom) : steps.draw.go(steps.draw.get() - 1)),
      ArrowRight: () => (event.shiftKey ? look(state.x + shift, state.y, state.zoom) : steps.draw.go(steps.draw.get() + 1)),
      ",": () => steps.frame.go(steps.frame.get() - 1), ".": () => steps.frame.go(steps.frame.get() + 1),
      " ": () => (steps.frame.count > 1 ? steps.frame : steps.draw).count > 1 && (steps.frame.count > 1 ? steps.frame : steps.draw).play(),
      "+": () => look(state.x, state.y, Math.min(24, state.zoom * 1.25)), "=": () => look(state.x, state.y, Math.min(24, state.zoom * 1.25)),
      "-": () => look(state.x, state.y, Math.max(1, state.zoom / 1.25)), 0: reset,
      "[": () => setWindow((state.low + state.high) / 2, (state.high - state.low) / 1.1), "]": () => setWindow((state.low + state.high) / 2, (state.high - state.low) * 1.1),
      v: () => tool("pan"), w: () => tool("window"), p: () => tool("profile"),
      f: () => enlarge(panels.find(panel => panel.figure.contains(document.activeElement)) || panels.find(panel => panel.figure.classList.contains("large")) || panels[0]),
    }[event.key];
    if (!does) return;
    if (/^Arrow/.test(event.key) && !root.contains(event.target) && root.getBoundingClientRect().bottom < 200) return; // the page scrolls below the viewer
    event.preventDefault(); does();
  });

  for (const step of Object.values(steps)) step.show();
  if (!data.exact) root.querySelector("[data-lossy]").hidden = false;
  addEventListener("resize", layout);
  setWindow(data.white / 2, data.white); tool("pan"); layout(); refresh();
})();
