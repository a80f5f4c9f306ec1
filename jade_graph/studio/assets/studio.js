// Theme, and the two pages on which the viewer meets the server.
const jadeTheme = {
  get: () => localStorage.getItem("jade-theme") || "auto",
  system: matchMedia("(prefers-color-scheme: dark)"),
  dark: () => (jadeTheme.get() === "auto" ? jadeTheme.system.matches : jadeTheme.get() === "dark"),
  apply: () => {
    if (!document.body) return;
    const dark = jadeTheme.dark();
    document.body.classList.toggle("body--dark", dark);
    document.body.classList.toggle("body--light", !dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
  },
  flip: () => { localStorage.setItem("jade-theme", jadeTheme.dark() ? "light" : "dark"); jadeTheme.apply(); },
};
document.addEventListener("DOMContentLoaded", () => {
  jadeTheme.apply();
  new MutationObserver(() => {  // the component library sets its own class when it starts
    if (document.body.classList.contains("body--dark") !== jadeTheme.dark()) jadeTheme.apply();
  }).observe(document.body, {attributes: true, attributeFilter: ["class"]});
});
jadeTheme.system.addEventListener("change", jadeTheme.apply);

const jadeStudio = (() => {
  const when = (ids, then) => {
    const found = ids.map((id) => document.getElementById(id));
    if (found.includes(null)) setTimeout(() => when(ids, then), 10);
    else then(found);
  };
  const run = (id, options) => when(["jade-run"], ([root]) => {
    const {el, button} = jadeViewer;
    options.actions = (d) => {
      if (d.seq === undefined) return null;
      const bar = el("div", "jv-actions");
      bar.append(button("Fork from here", "Ask again, or edit what happened here, and run on",
        () => emitEvent("jade_fork", {seq: d.seq}), "jv-primary"));
      setTimeout(() => jadeLook.attach(bar, id, d), 0);  // the pane is filled when this returns
      return bar;
    };
    // What the run says of its answer, while it is written: the view has it once the run has ended.
    const said = el("p", "st-said", null, {role: "status", "aria-label": "The answer so far"});
    let hearing = null;
    options.onView = (view) => {
      if (view.status !== "running" && hearing) { hearing.close(); said.remove(); }
      if (view.status !== "running" || hearing) return;
      hearing = new EventSource(`/api/runs/${encodeURIComponent(id)}/answer`);
      hearing.onmessage = (event) => { said.textContent = JSON.parse(event.data); };
      hearing.onerror = () => hearing.close();  // it has ended, or runs elsewhere
    };
    options.header = (top, view) => {
      if (view.status === "running") top.append(said);
      const links = el("div", "st-family");
      const link = (href, text) => {
        const a = el("a", "st-link", text);
        a.href = href;
        links.append(a);
      };
      links.append(el("span", "st-soft", "run " + view.id));
      if (view.parent) link(`/pair?a=${view.parent}&b=${view.id}`, `forked from ${view.parent.slice(0, 8)}, side by side`);
      for (const f of (view.forks || []).slice(-4)) link(`/pair?a=${view.id}&b=${f}`, `its fork ${f.slice(0, 8)}`);
      top.append(links);
    };
    options.onChange = (now) => {
      const query = new URLSearchParams();
      if (now.step !== null) query.set("step", now.step);
      if (now.select) query.set("box", now.select);
      if (now.tab !== "tree") query.set("tab", now.tab);
      const to = location.pathname + (String(query) ? "?" + query : "");
      if (to !== location.pathname + location.search) history.replaceState(history.state, "", to);
    };
    window.jadeRun = jadeViewer.mount(root, jadeViewer.fromServer(id), options);
  });
  const pair = (ids) => when(["jade-one", "jade-other", "jade-difference"], ([one, other, told]) => {
    const {el} = jadeViewer;
    const shown = [one, other].map((root, i) =>
      jadeViewer.mount(root, jadeViewer.fromServer(ids[i]), {compact: true, keys: i === 0}));
    const look = async () => {
      const reply = await fetch(`/api/differences/${ids[0]}/${ids[1]}`);
      if (reply.status === 200 && shown.every((s) => s.view)) {
        const d = await reply.json();
        document.getElementById("jade-question").textContent = d.question;
        if (d.told) {
          const where = d.told.question === "0" ? "the question" : "sub-question " + d.told.question.slice(2);
          told.replaceChildren(el("strong", "", `First difference: ${d.told.role} at ${where}`),
            el("code", "", d.told.one), el("span", "", "→"), el("code", "", d.told.other));
          shown[0].differ(d.one ? [d.one] : []);
          shown[1].differ(d.other ? [d.other] : []);
        } else told.textContent = d.ended ? "The two runs did the same." : "The same so far.";
        told.dataset.ended = d.ended ? "1" : "";
        if (d.ended) return;
      }
      setTimeout(look, 300);
    };
    look();
  });
  return {run, pair};
})();
