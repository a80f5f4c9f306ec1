// Shows one run: its tree, its time, the graph of its method, a step slider and the details of what is selected.
// Everything that comes from a run is put on the page as text (textContent), never as markup; the pictures are drawn
// and escaped by jade_graph.picture.
"use strict";
const jadeViewer = (() => {
  const el = (tag, cls, text, attrs) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined && text !== null) node.textContent = text;
    for (const [k, v] of Object.entries(attrs || {})) node.setAttribute(k, v);
    return node;
  };
  const button = (text, label, act, cls) => {
    const node = el("button", "jv-button " + (cls || ""), text, {type: "button", "aria-label": label, title: label});
    node.addEventListener("click", act);
    return node;
  };
  const draw = (host, svg) => {
    const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
    host.replaceChildren(document.importNode(parsed.documentElement, true));
    return host.firstElementChild;
  };

  // --- details ------------------------------------------------------------------------------------------------------
  const heat = (p) => {  // a token's probability: none of the colour for a sure one, all of it for a guess
    const doubt = Math.min(1, -p / 3);
    return `color-mix(in srgb, var(--jg-warn) ${Math.round(doubt * 62)}%, transparent)`;
  };
  const sections = {
    text: (s) => el("pre", "jv-text", s.text || "(empty)"),
    messages: (s) => {
      const host = el("div");
      for (const [role, text] of s.messages) {
        if (s.messages.length > 1) host.append(el("div", "jv-role", role));
        host.append(el("pre", "jv-text jv-long", text));
      }
      return host;
    },
    tokens: (s) => {
      const host = el("div");
      host.append(el("pre", "jv-text", s.text || "(nothing)"));
      const line = el("div", "jv-tokens", null, {"aria-label": "Tokens, coloured by log-probability"});
      for (const [piece, p] of s.tokens) {
        const token = el("span", "jv-token", piece.replace(/\n/g, "↵") || "∅",
          {title: `log-probability ${p.toFixed(3)} (${(100 * Math.exp(p)).toFixed(1)} %)`});
        token.style.background = heat(p);
        line.append(token);
      }
      host.append(line);
      const scale = el("div", "jv-scale");
      scale.append(el("span", "", "sure"), el("span", "jv-ramp"), el("span", "", "a guess"));
      host.append(scale);
      if (s.note) host.append(el("div", "jv-note", s.note));
      return host;
    },
    documents: (s) => {
      const host = el("div");
      for (const d of s.documents) {
        const hit = d.parts.some((part) => part[1]);
        const box = el("details", "jv-document" + (d.selected ? " jv-selected" : d.selected === false ? " jv-left" : ""));
        if (d.selected || (d.selected === null && hit)) box.open = true;
        const head = el("summary", "", null);
        head.append(el("span", "jv-doc-name", d.name), el("span", "jv-doc-title", d.title));
        if (d.selected) head.append(el("span", "jv-badge jv-good", "selected"));
        if (hit) head.append(el("span", "jv-badge jv-note-tone", "has an answer string"));
        box.append(head);
        const body = el("p", "");
        for (const [part, is] of d.parts) body.append(is ? el("mark", "", part) : document.createTextNode(part));
        box.append(body);
        host.append(box);
      }
      return host;
    },
    rows: (s) => facts(s.rows),
    pieces: (s) => {  // of a judged text: a list, so that it is read out with the weights; colour says them again
      const host = el("div");
      const list = el("ol", "jv-pieces", null, {"aria-label": "Pieces of the text, each with its weight from 1 to 5"});
      for (const [piece, weight, tokens] of s.pieces) {
        const item = el("li", "jv-piece" + (weight === null ? "" : " jv-weight-" + Math.round(weight)));
        const told = weight === null ? "–" : String(weight);
        item.append(el("span", "jv-weight", told, {"aria-label": weight === null ? "not weighed" : "weight " + told}));
        item.append(el("span", "jv-piece-text", piece), el("span", "jv-piece-tokens", tokens + " tokens"));
        list.append(item);
      }
      host.append(list);
      if (s.note) host.append(el("div", "jv-note", s.note));
      return host;
    },
  };
  const facts = (rows) => {
    const list = el("dl", "jv-facts");
    for (const [name, value] of rows) list.append(el("dt", "", name), el("dd", "", value));
    return list;
  };
  const showDetail = (host, d, actions) => {
    if (!d || !d.key) {
      host.replaceChildren(el("p", "jv-empty", "Select a box of the picture to see what went in and what came out."));
      return;
    }
    const head = el("div", "jv-detail-head");
    if (d.code) head.append(el("span", "jv-code jv-" + d.family, d.code));
    head.append(el("h2", "", d.title));
    const badges = el("div", "jv-badges");
    for (const [text, tone] of d.badges) badges.append(el("span", "jv-badge jv-" + tone, text));
    const out = [head, badges, el("p", "jv-summary", d.summary)];
    if (actions) { const bar = actions(d); if (bar) out.push(bar); }
    for (const s of d.sections) {
      const box = el("section", "jv-section");
      box.append(el("h3", "", s.title), sections[s.kind](s));
      out.push(box);
    }
    const about = el("section", "jv-section");
    about.append(el("h3", "", "Figures"), facts(d.facts));
    out.push(about);
    host.replaceChildren(...out);
    host.scrollTop = 0;
  };

  // --- the whole view -----------------------------------------------------------------------------------------------
  const mount = (root, source, options) => {
    const o = Object.assign({keys: true, step: null, select: null, compact: false, differs: []}, options || {});
    let view = null, step = 0, tab = o.tab || "tree", chosen = o.select, follow = true, playing = null, zoom = null;
    let wish = 0;
    root.classList.add("jv", "jg-theme");
    if (o.compact) root.classList.add("jv-compact");
    const top = el("header", "jv-top"), tabs = el("div", "jv-tabs", null, {role: "tablist"});
    const canvas = el("div", "jv-canvas", null, {tabindex: "-1"}), bar = el("div", "jv-bar");
    const side = el("aside", "jv-side", null, {"aria-label": "Details", "aria-live": "polite"});
    const main = el("div", "jv-main");
    main.append(tabs, canvas, bar);
    const body = el("div", "jv-body");
    body.append(main, side);
    root.replaceChildren(top, body);

    const names = {tree: "Tree", gantt: "Time", topology: "Method"};
    const tabButtons = {};
    for (const [key, name] of Object.entries(names)) {
      const b = el("button", "jv-tab", name, {type: "button", role: "tab"});
      b.addEventListener("click", () => { tab = key; zoom = null; redraw(); changed(); });
      tabButtons[key] = b;
      tabs.append(b);
    }
    const zooms = el("span", "jv-zooms");
    zooms.append(button("−", "Smaller", () => scale(0.8)), button("Fit", "Fit the width", () => scale(0)),
      button("+", "Larger", () => scale(1.25)));
    tabs.append(zooms);

    const slider = el("input", "jv-slider", null, {type: "range", min: "0", max: "0", value: "0", "aria-label": "Step"});
    const play = button("▶", "Play (space)", () => toggle(), "jv-play");
    const told = el("div", "jv-told", null, {"aria-live": "polite"});
    bar.append(button("◀", "One step back (left arrow)", () => by(-1), "jv-back"), play,
      button("▶︎|", "One step on (right arrow)", () => by(1), "jv-on"), slider, told);
    bar.querySelector(".jv-on").textContent = "▶";
    play.textContent = "Play";
    slider.addEventListener("input", () => by(Number(slider.value) - step));

    const changed = () => { if (o.onChange) o.onChange({step: follow ? null : step, select: chosen, tab}); };
    const scale = (by) => {
      const svg = canvas.querySelector("svg");
      if (!svg) return;
      const natural = svg.viewBox.baseVal;
      zoom = by ? Math.max(0.3, Math.min(2.5, svg.getBoundingClientRect().width / natural.width * by)) : null;
      fit();
    };
    const fit = () => {
      const svg = canvas.querySelector("svg");
      if (!svg) return;
      const natural = svg.viewBox.baseVal;
      const room = canvas.clientWidth - 32;
      const best = tab === "gantt" ? room / natural.width : room / natural.width;
      const by = zoom || Math.max(0.62, Math.min(tab === "gantt" ? 1.6 : 1, best));
      svg.setAttribute("width", natural.width * by);
      svg.setAttribute("height", natural.height * by);
    };
    const redraw = () => {
      for (const [key, b] of Object.entries(tabButtons)) b.setAttribute("aria-selected", String(key === tab));
      const left = canvas.scrollLeft, high = canvas.scrollTop;
      draw(canvas, view[tab]);
      for (const box of canvas.querySelectorAll(".jg-box")) {
        box.addEventListener("click", () => select(box.dataset.key));
        box.addEventListener("keydown", (e) => {
          if (e.key === "Enter") { e.preventDefault(); select(box.dataset.key); }
        });
      }
      fit();
      canvas.scrollLeft = left; canvas.scrollTop = high;
      paint();
    };
    const paint = () => {
      for (const box of canvas.querySelectorAll(".jg-box")) {
        const starts = Number(box.dataset.starts), ends = Number(box.dataset.ends);
        const live = view.status === "running" && step >= view.steps && box.dataset.final === "running";
        const state = live ? "running" : step >= ends && box.dataset.final !== "pending" ? box.dataset.final
          : step >= starts && box.dataset.final !== "pending" ? "running" : "pending";
        box.classList.remove("jg-is-pending", "jg-is-running", "jg-is-done", "jg-is-fallback", "jg-is-failed");
        box.classList.add("jg-is-" + state);
        box.classList.toggle("jg-chosen", box.dataset.key === chosen);
        box.classList.toggle("jg-differs", o.differs.includes(box.dataset.key));
        box.setAttribute("aria-pressed", String(box.dataset.key === chosen));
      }
      for (const edge of canvas.querySelectorAll(".jg-edge[data-ends]")) {
        edge.classList.toggle("jg-faint", step < Number(edge.dataset.starts));
      }
      slider.max = String(view.steps); slider.value = String(step);
      slider.setAttribute("aria-valuetext", `step ${step} of ${view.steps}`);
      const line = step ? view.order[step - 1][1] : "before the first action";
      told.textContent = `${step} of ${view.steps} · ${line}`;
      told.title = line;
    };
    const reveal = (key) => {
      const box = [...canvas.querySelectorAll(".jg-box")].find((b) => b.dataset.key === key);
      if (!box) return;
      const a = box.getBoundingClientRect(), b = canvas.getBoundingClientRect();
      if (a.top < b.top || a.bottom > b.bottom) canvas.scrollTop += a.top - b.top - (b.height - a.height) / 2;
      if (a.left < b.left || a.right > b.right) canvas.scrollLeft += a.left - b.left - (b.width - a.width) / 2;
    };
    const select = async (key) => {
      chosen = key;
      const mine = ++wish;
      paint(); changed();
      const d = key ? await source.detail(key) : null;
      if (mine === wish) showDetail(side, d, o.actions);
    };
    const go = (to) => {
      step = Math.max(0, Math.min(view.steps, to));
      follow = step >= view.steps;
      paint();
      const key = step ? view.order[step - 1][0] : "q0";
      reveal(key); select(key);
    };
    const toggle = () => {
      if (playing) { clearInterval(playing); playing = null; play.textContent = "Play"; return; }
      if (step >= view.steps) go(0);
      play.textContent = "Pause";
      playing = setInterval(() => { go(step + 1); if (step >= view.steps) toggle(); }, 700);
    };
    const by = (n) => { if (playing) toggle(); go(step + n); };  // whoever steps by hand has stopped the play
    const header = () => {
      const line = el("div", "jv-line");
      line.append(el("h1", "", view.question));
      const badges = el("div", "jv-badges");
      for (const [text, tone] of view.badges) badges.append(el("span", "jv-badge jv-" + tone, text));
      const rows = el("dl", "jv-head");
      for (const [name, value] of view.head) {
        const pair = el("div", "");
        pair.append(el("dt", "", name), el("dd", "", value, {title: value}));
        rows.append(pair);
      }
      top.replaceChildren(line, badges);
      if (view.why) top.append(el("p", "jv-why", view.why));
      top.append(rows);
      if (o.header) o.header(top, view);
    };
    const refresh = async () => {
      const fresh = await source.view(view);
      if (fresh && fresh.note !== undefined) {  // not begun yet, or there is no such run
        const box = el("div", "jv-wait" + (fresh.failed ? " jv-failed" : ""), fresh.note, {role: "status"});
        canvas.replaceChildren(box);
        if (!fresh.failed && root.isConnected) setTimeout(refresh, 300);
        return;
      }
      if (fresh) {
        const first = view === null;
        view = fresh;
        if (first) { step = o.step === null ? view.steps : Math.min(o.step, view.steps); follow = step >= view.steps; }
        if (follow) step = view.steps;
        header(); redraw();
        if (first) {
          const bad = [...canvas.querySelectorAll(".jg-box")].find((b) => b.dataset.final === "failed" && b.dataset.key[0] === "a");
          const pick = chosen || (bad ? bad.dataset.key : view.status === "running" ? null : "q0");
          if (pick && !o.quiet) { select(pick); if (chosen || bad) reveal(pick); } else showDetail(side, null);
          root.dataset.ready = "1";
        } else if (follow && view.status === "running" && view.steps) reveal(view.order[view.steps - 1][0]);
        if (o.onView) o.onView(view);
      }
      if (root.isConnected && view && view.status === "running" && source.live) setTimeout(refresh, 350);
    };
    if (o.keys) document.addEventListener("keydown", (e) => {
      if (!root.isConnected || !view || e.ctrlKey || e.altKey || e.metaKey) return;
      const at = e.target, tag = at.tagName || "";
      if (/^(INPUT|TEXTAREA|SELECT|BUTTON|SUMMARY)$/.test(tag) && at !== slider || at.isContentEditable) return;
      if (document.querySelector(".q-dialog")) return;
      if (e.key === "ArrowLeft") { e.preventDefault(); by(-1); }
      else if (e.key === "ArrowRight") { e.preventDefault(); by(1); }
      else if (e.key === " ") { e.preventDefault(); toggle(); }
    });
    new ResizeObserver(() => { if (view) fit(); }).observe(canvas);
    refresh();
    const differ = (keys) => { o.differs = keys; if (view) { paint(); if (keys[0]) { reveal(keys[0]); if (!chosen || chosen === "q0") select(keys[0]); } } };
    return {select, go, refresh, differ, get view() { return view; }, get step() { return step; }};
  };

  // --- where the data come from -------------------------------------------------------------------------------------
  const fromPage = () => {
    const data = JSON.parse(document.getElementById("jade-data").textContent);
    const source = {view: async (old) => (old ? null : data.view), detail: async (key) => data.details[key], live: false};
    return mount(document.getElementById("jade-run"), source);
  };
  const fromServer = (id, base) => ({
    live: true,
    view: async (old) => {
      const mark = old ? `?since=${old.mark}` : "";
      const reply = await fetch(`${base || ""}/api/runs/${encodeURIComponent(id)}${mark}`);
      if (reply.status === 200 || reply.status === 202) return reply.json();
      if (reply.status === 204) return null;
      const told = await reply.json().catch(() => null);
      return {note: told && told.error ? `${told.error.message} ${told.error.hint || ""}` : `error ${reply.status}`, failed: true};
    },
    detail: async (key) => {
      const reply = await fetch(`${base || ""}/api/runs/${encodeURIComponent(id)}/boxes/${encodeURIComponent(key)}`);
      return reply.ok ? reply.json() : null;
    },
  });
  return {mount, fromPage, fromServer, el, button};
})();
