"use strict";
(() => {
  const table = document.querySelector(".study"), body = table.tBodies[0], rows = [...body.rows];
  const filter = document.getElementById("filter"), warned = document.getElementById("warned"), count = document.getElementById("count");
  const valueOf = (row, column) => row.cells[column].dataset.value;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((one, two) => {
        const [a, b] = [valueOf(one, column), valueOf(two, column)];
        if (a === "" || b === "") return (a === "") - (b === ""); // rows without a value stay last
        return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      });
      body.append(...rows);
    });
  });
  function show() {
    const words = filter.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase(), fits = words.every(word => text.includes(word));
      row.hidden = !fits || (warned.checked && valueOf(row, row.cells.length - 1) === "0");
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length}`;
  }
  filter.addEventListener("input", show);
  warned.addEventListener("change", show);
  show();
})();
