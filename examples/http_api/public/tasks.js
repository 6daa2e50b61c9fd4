const byId = (id) => document.getElementById(id);

async function ask(method, path, value) {
  const headers = value ? { "Content-Type": "application/json" } : {};
  const body = value && JSON.stringify(value);
  const response = await fetch(path, { method, headers, body });
  const answer = await response.json();
  byId("problem").textContent = response.ok ? "" : `${answer.field ?? ""}: ${answer.error}`;
  return answer;
}

async function show() {
  const items = (await ask("GET", "/api/tasks")).map((task) => {
    const item = document.createElement("li");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = task.done;
    box.onchange = () =>
      ask("PUT", `/api/tasks/${task.id}`, { title: task.title, done: box.checked });
    item.append(box, " ", task.title);
    return item;
  });
  byId("tasks").replaceChildren(...items);
}

byId("add").onsubmit = async (event) => {
  event.preventDefault();
  const added = await ask("POST", "/api/tasks", { title: byId("title").value });
  if (added.id) {
    byId("title").value = "";
  }
};

// The server tells when something has changed, first of all that the page is told.
new EventSource("/api/changes").onmessage = show;
