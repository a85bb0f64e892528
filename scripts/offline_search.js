/* Search in pages that were opened as files: browsers start no worker there, so the search runs in a hidden frame. */
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true; frame.title = "search";
      document.body.append(frame);
      const inside = this.inside = frame.contentWindow;
      const load = address => new Promise((resolve, reject) => {
        const script = inside.document.createElement("script");
        script.src = address; script.onload = resolve; script.onerror = reject;
        inside.document.head.append(script);
      });
      inside.importScripts = (...addresses) => addresses.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = load(new URL(url, location.href).href);
    }
    postMessage(data) { this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }))); }
    terminate() {}
  };
}
