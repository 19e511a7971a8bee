"use strict";
// Pairs of pictures: a range input, as large as the picture, moves the divider by mouse, touch and keyboard; two lists
// choose what is shown on its left and right.
for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input");
  const move = () => pair.style.setProperty("--x", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
  const pictures = [...pair.querySelectorAll(".all img")];
  for (const list of pair.querySelectorAll("select")) {
    const shown = pair.querySelector(list.dataset.side === "left" ? "img.over" : "img.under");
    const choose = () => { shown.src = pictures[list.value].src; };
    list.addEventListener("change", choose);
    choose();
  }
}
