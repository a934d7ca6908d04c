// Server-sent events, with the position in the stream after each: a stream that broke off goes on from there.

class EventReader {
  constructor(position = 0) {
    this.position = position; // bytes of the stream that are done with
    this.rest = new Uint8Array(0); // bytes of a line that is not whole
    this.data = []; // lines of an event that is not whole
    this.pending = 0; // their bytes
    this.decoder = new TextDecoder();
  }

  // Events and comments that `bytes` complete: { data } or { comment }, each with its `position`.
  *read(bytes) {
    const all = new Uint8Array(this.rest.length + bytes.length);
    all.set(this.rest);
    all.set(bytes, this.rest.length);
    let start = 0;
    for (let end; (end = all.indexOf(10, start)) >= 0; start = end + 1) {
      const line = this.decoder.decode(all.subarray(start, end)).replace(/\r$/, '');
      this.pending += end + 1 - start;
      if (line.startsWith('data:')) {
        this.data.push(line.slice(line[5] === ' ' ? 6 : 5));
        continue;
      }
      if (line.startsWith(':') && this.data.length === 0) {
        yield { comment: line.slice(1).trim(), position: this.done() };
      } else if (line === '' && this.data.length > 0) {
        const data = this.data.join('\n');
        this.data = [];
        yield { data, position: this.done() };
      } else if (this.data.length === 0) {
        this.done();
      }
    }
    this.rest = all.slice(start);
  }

  done() {
    this.position += this.pending;
    this.pending = 0;
    return this.position;
  }
}
