// A tab of the node pane: the look inside a decision. Tables with the figure in every cell; colour only adds to it.
// Everything is put on the page as text.
"use strict";
const jadeLook = (() => {
  const {el, button} = jadeViewer;
  const kinds = {resid: "Residual stream", attn: "Attention output", mlp: "MLP output", head: "Heads, at all positions"};
  const figure = (v) => (Math.abs(v) < 0.005 ? "0" : v.toFixed(2).replace(/^(-?)0\./, "$1."));
  const layerName = (n) => (n < 0 ? "emb" : String(n));
  const map = (value, kind) => {
    const mine = value.sites.filter((s) => s.kind === kind);
    if (!mine.length) return null;
    const columns = kind === "head" ? [...new Set(mine.map((s) => s.at))]
      : value.groups.filter((g) => mine.some((s) => s.at === g));
    const known = new Map(mine.map((s) => [s.layer + " " + s.at, s.recovery]));
    const table = el("table", "lk-map");
    table.append(el("caption", "", kinds[kind]));
    const head = el("tr");
    head.append(el("th", "", "layer", {scope: "col"}));
    for (const c of columns) head.append(el("th", "", c, {scope: "col"}));
    const top = el("thead"); top.append(head); table.append(top);
    const body = el("tbody");
    for (const layer of [...new Set(mine.map((s) => s.layer))].sort((a, b) => a - b)) {
      const row = el("tr");
      row.append(el("th", "", layerName(layer), {scope: "row"}));
      for (const c of columns) {
        const v = known.get(layer + " " + c);
        const cell = el("td", "", v === undefined ? "" : figure(v));
        if (v !== undefined) {
          cell.style.background = `color-mix(in srgb, var(--jg-${v < 0 ? "warn" : "run"}) ${Math.round(Math.min(1, Math.abs(v)) * 45)}%, transparent)`;
          cell.title = `${kinds[kind]}, layer ${layerName(layer)}, ${c}: ${v.toFixed(3)}`;
        }
        row.append(cell);
      }
      body.append(row);
    }
    table.append(body);
    const host = el("div", "lk-wide", null, {tabindex: "0", role: "region", "aria-label": kinds[kind]});
    host.append(table);
    return host;
  };
  const shown = (value) => {
    const out = [el("h3", "", value.decision)];
    out.push(el("p", "", `Logit difference (nats): clean ${value.ld_clean.toFixed(2)}, corrupted ${value.ld_corrupt.toFixed(2)}. ` +
      "A recovery of 1 brings all of it back, one below 0 pushes the other way."));
    const swapped = el("dl", "jv-facts");
    swapped.append(el("dt", "", "swapped"), el("dd", "", value.swapped.old), el("dt", "", "for"), el("dd", "", value.swapped.new));
    out.push(swapped);
    for (const note of value.notes) out.push(el("p", "jv-note", note));
    for (const kind of Object.keys(kinds)) { const t = map(value, kind); if (t) out.push(t); }
    const text = el("div", "lk-text", null, {"aria-label": "The prompt by groups"});
    for (const [group, words] of value.prompt) {
      const part = el("span", "lk-part" + (group === "swapped" ? " lk-swapped" : ""));
      part.append(el("small", "", group), document.createTextNode(" " + words));
      text.append(part, document.createTextNode(" "));
    }
    out.push(el("h3", "", "The prompt"), text);
    out.push(el("p", "jv-note", `Check: with its own activations ${figure(value.own)}, with all the clean ones ${figure(value.whole)}.`));
    return out;
  };
  const panel = (run, d, state) => {
    const host = el("section", "jv-section lk", null, {role: "tabpanel", id: "lk-panel", "aria-labelledby": "lk-tab"});
    const where = `/api/runs/${encodeURIComponent(run)}/look/${d.seq}`;
    const form = el("form", "lk-form"), told = el("p", "", "", {role: "status"}), found = el("div", "lk-found");
    const model = el("input", "lk-input", null, {"aria-label": "Model to look into", value: state.model, name: "model"});
    const which = el("select", "lk-input", null, {"aria-label": "Document", name: "document"});
    if (state.documents) {
      which.append(el("option", "", "first choice", {value: ""}));
      for (let i = 0; i < state.documents; i++) which.append(el("option", "", `document ${i}`, {value: String(i)}));
      form.append(which);
    }
    const go = el("button", "jv-button jv-primary", "Look", {type: "submit"});
    form.append(model, go);
    host.append(el("p", "jv-note", "Activations of this prompt are put into a run on a corrupted one, site by site: where " +
      "one alone brings the decision back, the model holds there what decides."), form, told, found);
    const show = (s) => {
      told.textContent = s.error || (s.value ? "" : s.note);
      told.className = s.error ? "st-error" : "st-soft";
      go.disabled = Boolean(!s.error && !s.value && s.note);
      found.replaceChildren(...(s.value ? shown(s.value) : []));
    };
    const follow = async () => {
      const reply = await fetch(where);
      const s = reply.ok ? await reply.json() : {error: `error ${reply.status}`};
      if (!host.isConnected) return;
      show(s);
      if (!s.error && !s.value) setTimeout(follow, 400);
    };
    form.addEventListener("submit", async (e) => {
      e.preventDefault();
      show({note: "begun"});
      const wanted = {model: model.value};
      if (which.value) wanted.document = Number(which.value);
      await fetch(where, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(wanted)});
      follow();
    });
    show(state);
    if (state.note && !state.value && !state.error) setTimeout(follow, 0);
    return host;
  };
  // Puts the two tabs behind the bar of a node's pane, where its action can be looked into.
  const attach = async (bar, run, d) => {
    const reply = await fetch(`/api/runs/${encodeURIComponent(run)}/look/${d.seq}`);
    if (!reply.ok) return;
    const state = await reply.json();
    if (!state.able || !bar.isConnected) return;
    const tabs = el("div", "lk-tabs", null, {role: "tablist", "aria-label": "Node"});
    const names = ["What happened", "Look inside"], made = panel(run, d, state);
    const rest = [...bar.parentElement.querySelectorAll(":scope > .jv-section")];
    const buttons = names.map((name, i) => {
      const b = el("button", "jv-tab", name, {type: "button", role: "tab", ...(i ? {id: "lk-tab", "aria-controls": "lk-panel"} : {})});
      b.addEventListener("click", () => choose(i));
      b.addEventListener("keydown", (e) => {
        if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
        e.preventDefault(); e.stopPropagation();
        choose(1 - i); buttons[1 - i].focus();
      });
      return b;
    });
    const choose = (i) => {
      buttons.forEach((b, k) => { b.setAttribute("aria-selected", String(k === i)); b.tabIndex = k === i ? 0 : -1; });
      for (const section of rest) section.hidden = i === 1;
      made.hidden = i === 0;
    };
    tabs.append(...buttons);
    bar.after(tabs);
    tabs.parentElement.append(made);
    choose(0);
  };
  return {attach};
})();
