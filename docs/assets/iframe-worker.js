// A worker for pages that are opened as files, where browsers allow none: the script runs in a hidden frame instead.
// The search needs it; with a server, the browser's own workers are used.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      const waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html><title>worker</title>";
      const send = (data) => {
        frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
      };
      this.postMessage = (data) => waiting.push(data);
      frame.addEventListener("load", () => {
        const inner = frame.contentWindow;
        inner.postMessage = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        // Scripts that a worker imports are loaded one after the other, before it goes on.
        inner.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => load(inner, url)), Promise.resolve());
        load(inner, new URL(script, location.href).href).then(() => {
          this.postMessage = (data) => setTimeout(send, 0, data);
          waiting.splice(0).forEach(this.postMessage);
        });
      }, { once: true });
      this.terminate = () => frame.remove();
      document.body.append(frame);
    }
  };

  function load(inner, url) {
    return new Promise((resolve, reject) => {
      const script = inner.document.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${url} was not loaded`));
      inner.document.head.append(script);
    });
  }
}
