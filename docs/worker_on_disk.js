/* Where a page is opened from a disk, browsers give it no worker; the search then runs in a hidden frame instead. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postToPage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.document.open();
      inside.document.write(
        "<html><body><script>" +
        "var importScripts = (...all) => all.reduce((before, one) => before.then(() => new Promise((done) => {" +
        "const script = document.createElement('script'); script.src = one; script.onload = done; document.body.append(script);" +
        "})), Promise.resolve());" +
        "var postMessage = (data) => postToPage(data);" +
        "<" + "/script><script src=\"" + url + "\"><" + "/script></body></html>"
      );
      inside.document.close();
      this.ready = new Promise((done) => { inside.addEventListener("load", done); });
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
