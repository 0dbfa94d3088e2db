"use strict";
// What htmx does not do by itself: say what went wrong, keep chosen seeds in the address, and try calls in the docs.

const notice = document.getElementById("notice");
let hiding;

function tell(text, bad) {
  notice.textContent = text;
  notice.className = bad ? "bad" : "";
  notice.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.hidden = true; }, bad ? 8000 : 3000);
}

function reason(xhr) {
  try {
    const problem = JSON.parse(xhr.responseText);
    return problem.detail || problem.title;
  } catch {
    return "the server answered " + xhr.status;
  }
}

document.addEventListener("htmx:responseError", (event) => tell(reason(event.detail.xhr), true));
document.addEventListener("htmx:sendError", () => tell("the server cannot be reached", true));
document.addEventListener("htmx:timeout", () => tell("the server took too long", true));
document.addEventListener("notice", (event) => tell(event.detail.value, false));

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form.try");
  if (!form) return;
  event.preventDefault();
  const output = form.querySelector("pre.output");
  output.hidden = false;
  output.textContent = "…";
  const headers = {};
  if (form.elements.key) headers.authorization = "Bearer " + form.elements.key.value;
  if (form.elements.body) headers["content-type"] = "application/json";
  const begun = performance.now();
  try {
    const response = await fetch(form.elements.path.value, {
      method: form.dataset.method.toUpperCase(),
      headers,
      body: form.elements.body ? form.elements.body.value : undefined,
    });
    let text = await response.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown as it is */ }
    output.textContent = `${response.status} in ${Math.round(performance.now() - begun)} ms\n${text}`;
  } catch (error) {
    output.textContent = String(error);
  }
});
