// The little that the pages do by themselves; all but trying rules works without it too. Own work.
"use strict";

(() => {
  const picked = (name) => document.querySelectorAll(`input[name="${name}"]:checked`).length;

  const count = (name) => {
    for (const place of document.querySelectorAll(`[data-picked="${name}"]`)) {
      const number = picked(name);
      place.textContent = number ? place.dataset.text.replace("{n}", number) : "";
    }
  };

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.dataset && box.dataset.all) {
      for (const one of document.querySelectorAll(`input[name="${box.dataset.all}"]`)) one.checked = box.checked;
      count(box.dataset.all);
    } else if (box.type === "checkbox" && box.name) {
      count(box.name);
    }
  });

  // What is being typed or chosen is never swept away by news; it comes with the next news.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    const active = document.activeElement;
    const cause = event.detail.requestConfig && event.detail.requestConfig.triggeringEvent;
    if (!target || !cause || cause.type !== "news") return;
    const isBeingFilled = target.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName);
    if (isBeingFilled || target.querySelector("input[type=checkbox]:checked")) event.detail.shouldSwap = false;
  });

  // Opened details stay open, and those who hear the page are told, not interrupted.
  let opened = [];
  document.addEventListener("htmx:beforeSwap", (event) => {
    opened = [...event.detail.target.querySelectorAll("details[open] > summary")].map((one) => one.textContent);
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    for (const summary of event.detail.target.querySelectorAll("details > summary")) {
      if (opened.includes(summary.textContent)) summary.parentElement.open = true;
    }
    const spoken = document.getElementById("spoken");
    if (spoken && event.detail.target.id === "live") {
      spoken.textContent = "";
      window.setTimeout(() => { spoken.textContent = spoken.dataset.text; }, 100);
    }
  });

  // What somebody asked for and did not get is said until they ask again; news that do not come are left alone.
  let refusal = null;
  const isAsked = (event) => {
    const cause = event.detail.requestConfig && event.detail.requestConfig.triggeringEvent;
    return Boolean(cause) && /^(submit|change|input|click)$/.test(cause.type);
  };
  const lament = (event) => {
    const place = document.getElementById("notices");
    if (!place || !isAsked(event)) return;
    let words = [place.dataset.failed];
    try {
      const said = JSON.parse(event.detail.xhr.responseText);
      const language = document.documentElement.lang;
      words = [said.message[language], said.next_step[language]];
    } catch { /* no answer at all, or one that is none of ours */ }
    refusal = document.createElement("p");
    refusal.className = "notice held";
    refusal.textContent = words.filter(Boolean).join(" ");
    place.replaceChildren(refusal);
    place.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (refusal && isAsked(event)) refusal.remove();
  });
  document.addEventListener("htmx:responseError", lament);
  document.addEventListener("htmx:sendError", lament);

  // "Look again": at most every other second, the last time included; no line is kept open for a hidden window.
  const PAUSE_MS = 2000;
  const address = document.body.dataset.news;
  let line = null;
  let due = null;
  let told = 0;

  const tell = () => {
    due = null;
    told = Date.now();
    document.body.dispatchEvent(new CustomEvent("news"));
  };

  const hear = (event) => {
    const shown = document.querySelector("[data-study]");
    const studies = JSON.parse(event.data).study_uids;
    if (shown && studies.length && !studies.includes(shown.dataset.study)) return;
    if (!due) due = window.setTimeout(tell, Math.max(200, told + PAUSE_MS - Date.now()));
  };

  const listen = () => {
    if (document.hidden && line) {
      line.close();
      line = null;
    } else if (!document.hidden && !line) {
      line = new EventSource(address);
      line.addEventListener("changed", hear);
    }
  };

  if (address) {
    listen();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) tell();
      listen();
    });
    window.addEventListener("pagehide", () => line && line.close());
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.querySelector(".topbar details[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
})();
