// Questions to the person in front of the page, in the page's one dialog.
import { ConnectError } from "@connectrpc/connect";

export interface Field { name: string; label: string; value?: string; required?: boolean; type?: "text" | "number" }

/** Asks; what `act` throws is shown and the dialog stays. Its answer, if it has one, is shown to be copied. */
export function ask(title: string, explanation: string, fields: Field[], button: string, act: (values: Record<string, string>) => Promise<string | undefined>): void {
  const dialog = document.querySelector<HTMLDialogElement>("#dialog");
  if (!dialog) return;
  const form = element("form");
  form.append(element("h1", title), element("p", explanation));
  for (const field of fields) {
    const label = element("label", field.label);
    const input = element("input");
    input.name = field.name;
    input.type = field.type ?? "text";
    input.value = field.value ?? "";
    input.required = field.required ?? false;
    label.append(input);
    form.append(label);
  }
  const problem = element("p");
  problem.className = "problem";
  problem.setAttribute("role", "alert");
  const cancel = element("button", "Cancel");
  cancel.type = "button";
  cancel.onclick = () => dialog.close();
  const go = element("button", button);
  const buttons = element("div");
  buttons.className = "buttons";
  buttons.append(cancel, go);
  form.append(problem, buttons);
  form.onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    problem.textContent = "";
    try {
      const answer = await act(Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, String(value)])));
      if (answer === undefined) return dialog.close();
      const shown = element("textarea", answer);
      shown.readOnly = true;
      form.replaceChildren(element("h1", title), shown, buttons);
      go.remove();
      cancel.textContent = "Close";
      shown.select();
    } catch (error) {
      problem.textContent = ConnectError.from(error).rawMessage;
    } finally {
      go.disabled = false;
    }
  };
  dialog.replaceChildren(form);
  dialog.showModal();
}

export function element<K extends keyof HTMLElementTagNameMap>(name: K, text?: string): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}
