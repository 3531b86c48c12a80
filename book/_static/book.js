// What the theme leaves undone for readers with a screen reader.
document.addEventListener("DOMContentLoaded", () => {
  // The names of the colour switch's icons are not part of its name
  document.querySelectorAll("i.theme-switch").forEach((icon) => {
    icon.removeAttribute("title");
    icon.setAttribute("aria-hidden", "true");
  });
  // The accessible name of a button holds the text that it shows
  document.querySelectorAll("button[aria-label], summary[aria-label]").forEach((element) => {
    const shown = element.innerText.trim().replace(/\s+/g, " ");
    if (shown && !element.getAttribute("aria-label").toLowerCase().includes(shown.toLowerCase())) {
      element.removeAttribute("aria-label");
    }
  });
  // The roles that docutils gives a bibliography are deprecated
  document.querySelectorAll(".citation-list, .citation").forEach((element) => element.removeAttribute("role"));
  // An equation wider than the page scrolls, by keyboard too
  window.MathJax?.startup?.promise?.then(() => document.querySelectorAll("mjx-container[display]").forEach((equation) => {
    if (equation.scrollWidth > equation.clientWidth) equation.tabIndex = 0;
  }));
  // The way home belongs to a landmark
  const home = document.querySelector(".navbar-brand")?.parentElement;
  home?.setAttribute("role", "navigation");
  home?.setAttribute("aria-label", "Home");
});
