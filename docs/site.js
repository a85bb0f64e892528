/* Tables that are wider than the screen are scrolled by keys too, once the theme has wrapped them. */
addEventListener("load", () => setTimeout(() => {
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((box, at) => {
    box.tabIndex = 0; box.setAttribute("role", "region"); box.setAttribute("aria-label", `Table ${at + 1}`);
  });
}, 0));
