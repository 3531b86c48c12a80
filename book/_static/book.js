// What the theme leaves undone for readers with a screen reader or keyboard.
document.addEventListener("DOMContentLoaded", () => {
  // A button's accessible name begins with the text that it shows.
  document.querySelectorAll("button[aria-label], summary[aria-label]").forEach((element) => {
    const shown = [...element.querySelectorAll("*")].length ? element.innerText.trim().replace(/\s+/g, " ") : "";
    if (shown && !element.ariaLabel.toLowerCase().includes(shown.toLowerCase())) element.removeAttribute("aria-label");
  });
});
