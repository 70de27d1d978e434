// The People page: an unknown person is dragged onto a person.

document.addEventListener("dragstart", (event) => {
  const card = event.target.closest?.("[data-unknown]");
  if (!card) return;
  event.dataTransfer.setData("text/mien-unknown", card.dataset.unknown);
  event.dataTransfer.effectAllowed = "link";
});
document.addEventListener("dragover", (event) => {
  const card = event.target.closest?.("[data-person]");
  for (const other of document.querySelectorAll(".drop")) if (other !== card) other.classList.remove("drop");
  if (!card || ![...event.dataTransfer.types].includes("text/mien-unknown")) return;
  event.preventDefault();
  card.classList.add("drop");
});
document.addEventListener("drop", (event) => {
  const card = event.target.closest?.("[data-person]");
  const unknown = event.dataTransfer.getData("text/mien-unknown");
  for (const other of document.querySelectorAll(".drop")) other.classList.remove("drop");
  if (!card || !unknown) return;
  event.preventDefault();
  emitEvent("mien-drop", { unknown: Number(unknown), person: Number(card.dataset.person) });
});
