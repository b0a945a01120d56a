// Evaluates flags with OpenFeature's web SDK and its OFREP provider. It writes a line of JSON with the
// results, and a second one after the event stream has sent a change.
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';

const [url, apiKey] = process.argv.slice(2);

// Objects of browsers that Node.js lacks.
const stored = new Map();
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
  removeItem: (key) => stored.delete(key),
};
globalThis.EventSource = class {
  constructor(address) {
    this.readyState = 0;
    this.listeners = { message: [], error: [], open: [] };
    this.abort = new AbortController();
    this.read(new URL(address, url));
  }

  addEventListener(kind, listener) { this.listeners[kind]?.push(listener); }

  removeEventListener() {}

  close() {
    this.readyState = 2;
    this.abort.abort();
  }

  tell(kind, event) {
    this[`on${kind}`]?.(event);
    for (const listener of this.listeners[kind]) listener(event);
  }

  async read(address) {
    try {
      const response = await realFetch(address, { signal: this.abort.signal });
      this.readyState = 1;
      this.tell('open', {});
      let text = '';
      for await (const chunk of response.body) {
        text += new TextDecoder().decode(chunk);
        const blocks = text.split('\n\n');
        text = blocks.pop();
        for (const block of blocks) {
          const data = block.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
          if (data) this.tell('message', { data });
        }
      }
    } catch (error) {
      if (this.readyState !== 2) this.tell('error', error);
    }
  }
};

const requests = [];
const realFetch = globalThis.fetch;
globalThis.fetch = async (input, init) => {
  const response = await realFetch(input, init);
  const headers = new Headers(init?.headers ?? input.headers);
  requests.push({ tag: headers.has('If-None-Match'), status: response.status });
  return response;
};

const client = OpenFeature.getClient();
const short = ({ value, reason, variant, errorCode }) => ({ value, reason, variant: variant ?? '', errorCode: errorCode ?? '' });
const evaluate = () => ({
  checkout: short(client.getObjectDetails('checkout', { color: 'default' })),
  'new-search': short(client.getBooleanDetails('new-search', false)),
  'page-size': short(client.getNumberDetails('page-size', 5)),
  old: short(client.getBooleanDetails('old', true)),
  nobody: short(client.getStringDetails('nobody', 'default')),
});

// until waits for a condition, because after a change of context, old values are returned first.
const until = async (holds) => {
  for (const end = Date.now() + 30_000; !holds() && Date.now() < end;) await new Promise((next) => { setTimeout(next, 20); });
};

const headers = apiKey ? [['X-API-Key', apiKey]] : undefined;
await OpenFeature.setContext({ targetingKey: 'user-1', country: 'FR' });
await OpenFeature.setProviderAndWait(new OFREPWebProvider({ baseUrl: url, headers }));
const french = evaluate();
await OpenFeature.setContext({ targetingKey: 'user-1', country: 'FR', irrelevant: 1 });
await until(() => requests.some(({ status }) => status === 304));
const same = evaluate();
await OpenFeature.setContext({ targetingKey: 'user-1', country: 'DE' });
await until(() => !client.getBooleanValue('new-search', false));
const german = evaluate();
const changed = new Promise((resolve) => {
  client.addHandler(ProviderEvents.ConfigurationChanged, () => {
    if (client.getBooleanValue('old', false) === true) resolve();
  });
});
console.log(JSON.stringify({ french, same, german, requests }));
await Promise.race([changed, new Promise((_, reject) => { setTimeout(() => reject(new Error('no change')), 60_000); })]);
console.log(JSON.stringify(evaluate()));
await OpenFeature.close();
process.exit(0);
