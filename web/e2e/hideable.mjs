// A tab that can be hidden. Playwright tells every tab of its own that it is looked at; those of the browser's first
// window it leaves alone, and there the tab in front hides the others.

export class HideableTab {
  log = [];
  #answers = new Map();
  #asked = 0;

  static async open(browser, uri) {
    const tab = new HideableTab();
    tab.session = await browser.newBrowserCDPSession();
    tab.session.on("Target.receivedMessageFromTarget", ({ message }) => {
      const { id, result } = JSON.parse(message);
      tab.#answers.get(id)?.(result);
      tab.#answers.delete(id);
    });
    tab.target = (await tab.session.send("Target.createTarget", { url: uri })).targetId;
    const { sessionId } = await tab.session.send("Target.attachToTarget", {
      targetId: tab.target,
      flatten: false,
    });
    tab.id = sessionId;
    return tab;
  }

  /** Runs a function without arguments in the page. */
  async evaluate(work) {
    const id = ++this.#asked;
    const params = { expression: `(${work})()`, returnByValue: true, awaitPromise: true };
    const message = JSON.stringify({ id, method: "Runtime.evaluate", params });
    const answer = new Promise((resolve) => this.#answers.set(id, resolve));
    await this.session.send("Target.sendMessageToTarget", { sessionId: this.id, message });
    const { result, exceptionDetails } = await answer;
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  }

  /** Opens another tab before it. */
  async hide() {
    const { targetId } = await this.session.send("Target.createTarget", { url: "about:blank" });
    await this.session.send("Target.activateTarget", { targetId });
    this.front = targetId;
  }

  /** As tabs of Playwright are closed. */
  context() {
    return {
      close: async () => {
        for (const targetId of [this.target, this.front])
          if (targetId) await this.session.send("Target.closeTarget", { targetId });
        await this.session.detach();
      },
    };
  }
}
