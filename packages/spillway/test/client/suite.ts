// What a client must hold in every runtime and over every transport. It runs in Node, Bun, Deno and browsers, so it imports
// nothing of theirs; the server and its faults are commanded over HTTP, see `test/support/client-control.ts`.
import { type Client, type ClientOptions, createClient, type Status, type Transport } from '../../src/client/index.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Batch } from '../../src/core/event.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import type { Order } from '../support/client-control.ts'
import type { Mode, SiteOptions, SiteState } from '../support/faulty-site.ts'

interface Web {
  fetch(url: string, init?: object): Promise<{ json(): Promise<unknown> }>
  setTimeout(callback: () => void, ms: number): unknown
  AbortController: new () => { abort(reason?: unknown): void; signal: AbortSignal }
  btoa(text: string): string
  TextEncoder: new () => { encode(text: string): Uint8Array }
}
const web = globalThis as unknown as Web

/** A site as tests command it. */
export class Site {
  readonly #control: string
  readonly #site: number
  readonly url: string

  private constructor(control: string, { site, url }: SiteState & { site: number }) {
    this.#control = control
    this.#site = site
    this.url = url
  }

  static async open(control: string, options: SiteOptions = {}): Promise<Site> {
    return new Site(control, await order(control, { method: 'open', args: [options] }))
  }

  state = (): Promise<SiteState> => this.#order('state')
  publish = (keys: readonly string[], payload?: unknown): Promise<SiteState> => this.#order('publish', keys, payload)
  setMode = (mode: Mode): Promise<SiteState> => this.#order('setMode', mode)
  cut = (): Promise<SiteState> => this.#order('cut')
  setTokens = (tokens: readonly string[]): Promise<SiteState> => this.#order('setTokens', tokens)
  stop = (): Promise<SiteState> => this.#order('stop')
  start = (history: boolean): Promise<SiteState> => this.#order('start', history)
  renew = (): Promise<SiteState> => this.#order('renew')
  close = (): Promise<SiteState> => this.#order('close')

  /** Waits until the server's state is as wanted. */
  async until(wanted: (state: SiteState) => boolean): Promise<void> {
    while (!wanted(await this.state()));
  }

  #order(method: Order['method'], ...args: unknown[]): Promise<SiteState> {
    return order(this.#control, { site: this.#site, method, args })
  }
}

async function order(control: string, body: Order): Promise<SiteState & { site: number }> {
  const response = await web.fetch(`${control}/order`, { method: 'POST', body: JSON.stringify(body) })
  return (await response.json()) as SiteState & { site: number }
}

/** What a test works with. */
export interface Given {
  readonly transport: Transport
  site(options?: SiteOptions): Promise<Site>
  /** A client that comes back at once, so that tests need not wait. */
  client(site: Site, options?: Partial<ClientOptions>): Client
}

export interface ClientTest {
  readonly name: string
  /** About HTTP: it says nothing of WebSockets. */
  readonly ofFetch?: true
  run(given: Given): Promise<void>
}

/** The tests over one transport, ready to be run by anybody. `control`: the url of the control server. */
export function clientSuite(
  control: string,
  transport: Transport,
  options: Partial<ClientOptions> = {},
): { name: string; run(): Promise<void> }[] {
  const chosen = tests.filter(({ ofFetch }) => !(ofFetch && transport === 'websocket'))
  return chosen.map(({ name, run }) => ({
    name: `${transport}: ${name}`,
    run: async () => {
      const sites: Site[] = []
      try {
        await run({
          transport,
          site: async (options) => {
            const site = await Site.open(control, options)
            sites.push(site)
            return site
          },
          client: ({ url }, more) =>
            createClient({ url, transport, heartbeat: 200, firstWait: 20, ...options, ...more }),
        })
      } finally {
        for (const site of sites) await site.close()
      }
    },
  }))
}

function same(actual: unknown, expected: unknown, what = ''): void {
  const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (left !== right) throw new Error(`${what} expected ${right}, got ${left}`)
}

async function rejects(promise: Promise<unknown>, code: string, message = /./): Promise<SpillwayError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof SpillwayError && error.code === code && message.test(error.message)) return error
    throw error
  }
  throw new Error(`expected ${code}, and nothing was rejected`)
}

/** The keys of the next batches, losses as `gap after..before reason`. */
async function take(subscription: Subscription, count: number): Promise<string[]> {
  const seen: string[] = []
  while (seen.length < count) seen.push(gist(await subscription.next()))
  return seen
}

function gist({ events, gap }: Batch): string {
  return gap ? `${gap.reason} ${gap.after}..${gap.before}` : events.map(({ key }) => key).join('+')
}

const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, n) => String(from + n))
const bytes = (text: string): string =>
  web.btoa(Array.from(new web.TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(''))

/** A response of HTTP with this body, for sites that say what they are told to. */
function scripted(transport: Transport, body: string, status = '200 OK', headers: readonly string[] = []): string {
  if (transport === 'websocket') return `ws:${bytes(body)}`
  const type = transport === 'sse' ? 'text/event-stream' : 'application/x-ndjson'
  const lines = [
    `HTTP/1.1 ${status}`,
    `Content-Type: ${type}`,
    'Connection: close',
    'Access-Control-Allow-Origin: *',
    ...headers,
  ]
  return bytes(`${lines.join('\r\n')}\r\n\r\n${body}`)
}

/** One message as a transport frames it. */
function framed(transport: Transport, message: string, name?: string): string {
  return transport === 'sse' ? `${name ? `event: ${name}\n` : ''}data: ${message}\n\n` : `${message}\n`
}

const batchText = (index: number, epoch = 'e-1'): string =>
  `{"index":${index},"cursor":"${epoch}:${index}","events":[{"topic":"T","type":"t","key":"${index}","namespace":"","filterKeys":[],"payload":null}]}`

const tests: ClientTest[] = [
  {
    name: 'batches arrive in order, once, with what was published',
    async run({ site, client }) {
      const server = await site()
      await server.publish(numbers(1, 50))
      const subscription = client(server).subscribe({ from: 'earliest' })
      same(await take(subscription, 50), numbers(1, 50))
      await server.publish(['é\u2028😀'], { text: 'é\u2028😀', n: [1, null] })
      const { events, index, cursor } = await subscription.next()
      same(index, 51)
      same(subscription.cursor, cursor)
      same(events, [
        {
          topic: 'Test',
          type: 'Tested',
          key: 'é\u2028😀',
          namespace: '',
          filterKeys: [],
          payload: { text: 'é\u2028😀', n: [1, null] },
        },
      ])
      subscription.close()
    },
  },
  {
    name: 'what is cut at every byte is put together again',
    async run({ site, client }) {
      const server = await site()
      await server.setMode('bytes')
      const subscription = client(server).subscribe({ from: 'earliest' })
      await server.publish(['1', 'é\u2028😀', '3'], 'é\u2028😀')
      same(await take(subscription, 3), ['1', 'é\u2028😀', '3'])
      subscription.close()
    },
  },
  {
    name: 'only topics and keys that are asked for arrive',
    async run({ site, client }) {
      const server = await site()
      await server.publish(numbers(1, 9))
      const { url } = server
      const subscription = client({ url } as Site).subscribe({
        topics: { Test: ['3', '7'], Other: ['*'] },
        from: 'earliest',
      })
      same(await take(subscription, 2), ['3', '7'])
      subscription.close()
    },
  },
  {
    name: 'a connection that is cut resumes, also more often than once and amid a batch',
    async run({ site, client }) {
      const server = await site()
      const subscription = client(server).subscribe()
      await subscription.ready
      const seen: string[] = []
      for (let round = 0; round < 5; round++) {
        await server.publish(numbers(10 * round + 1, 10 * round + 6), 'x'.repeat(5000))
        seen.push(...(await take(subscription, 3)))
        await server.cut()
        await server.publish(numbers(10 * round + 7, 10 * round + 10))
        seen.push(...(await take(subscription, 7)))
      }
      same(seen, numbers(1, 50))
      subscription.close()
    },
  },
  {
    name: 'a server that was restarted is followed on, with what was published meanwhile',
    async run({ site, client }) {
      const server = await site()
      const statuses: Status['state'][] = []
      const subscription = client(server).subscribe({ onStatus: ({ state }) => statuses.push(state) })
      await subscription.ready
      await server.publish(['1'])
      same(await take(subscription, 1), ['1'])
      const next = subscription.next()
      await server.stop()
      while (!statuses.includes('waiting')) await server.state()
      await server.publish(['2'])
      await server.start(true)
      same(gist(await next), '2')
      same(statuses.slice(0, 2), ['connecting', 'open'])
      same(statuses.at(-1), 'open')
      subscription.close()
      same(statuses.at(-1), 'closed')
    },
  },
  {
    name: 'another history is told as a reset, and then read from its beginning',
    async run({ site, client }) {
      const server = await site()
      await server.publish(['1', '2'])
      const subscription = client(server).subscribe({ from: 'earliest' })
      same(await take(subscription, 2), ['1', '2'])
      await server.renew()
      await server.publish(['new'])
      same(await take(subscription, 2), ['epoch 2..1', 'new'])
      subscription.close()
    },
  },
  {
    name: 'batches that are no longer kept are told as a gap',
    async run({ site, client }) {
      const server = await site({ capacity: 16 })
      const subscription = client(server).subscribe({ from: 'earliest' })
      await server.publish(['1'])
      same(await take(subscription, 1), ['1'])
      await server.setMode('refuse')
      await server.cut()
      await server.publish(numbers(2, 100))
      await server.setMode('pass')
      const gap = await subscription.next()
      same([gap.gap?.after, gap.events], [1, []])
      const before = gap.gap?.before as number
      same(await take(subscription, 101 - before), numbers(before, 100))
      subscription.close()
    },
  },
  {
    name: 'with onLag "fail" a loss ends the subscription, and its cursor goes on after it',
    async run({ site, client }) {
      const server = await site({ capacity: 16 })
      await server.publish(numbers(1, 100))
      const { cursor } = await rejects(
        client(server)
          .subscribe({ from: `${(await server.state()).epoch}:1`, onLag: 'fail' })
          .next(),
        'LAGGED',
      )
      const subscription = client(server).subscribe({ from: cursor as string })
      while (gist(await subscription.next()) !== '100');
      same(subscription.lag, 0)
      subscription.close()
    },
  },
  {
    name: 'a token that is no longer valid is asked for again',
    async run({ site, client }) {
      const server = await site({ tokens: ['old'] })
      const tokens = ['old', 'new']
      let asked = 0
      const headers = async () => ({ authorization: `Bearer ${tokens[Math.min(asked++, 1)]}` })
      const subscription = client(server, { headers }).subscribe({ from: 'earliest' })
      await server.publish(['1'])
      same(await take(subscription, 1), ['1'])
      await server.setTokens(['new'])
      await server.cut()
      await server.publish(['2'])
      same(await take(subscription, 1), ['2'])
      subscription.close()
    },
  },
  {
    name: 'a token that is refused ends the subscription',
    async run({ site, client }) {
      const server = await site({ tokens: ['right'] })
      for (const headers of [{ authorization: 'Bearer wrong' }, () => ({ authorization: 'Bearer wrong' })]) {
        const subscription = client(server, { headers }).subscribe()
        await rejects(subscription.ready, 'UNAUTHORIZED', /This token is not valid/)
        await rejects(subscription.next(), 'UNAUTHORIZED')
        same(subscription.closed, true)
      }
      same((await server.state()).connections <= 3, true, 'one attempt, and one with fresh credentials')
    },
  },
  {
    name: 'a connection that says nothing more is given up',
    async run({ site, client }) {
      const server = await site()
      const subscription = client(server).subscribe()
      await subscription.ready
      await server.publish(['1'])
      same(await take(subscription, 1), ['1'])
      const next = subscription.next()
      await server.setMode('silent')
      await server.publish(['2'])
      const { connections } = await server.state()
      await server.until((state) => state.connections > connections)
      await server.setMode('pass')
      await server.cut()
      same(gist(await next), '2')
      subscription.close()
    },
  },
  {
    name: 'closing, aborting and leaving the loop end the stream at the server',
    async run({ site, client }) {
      const server = await site()
      const controller = new web.AbortController()
      const closed = client(server).subscribe()
      const aborted = client(server).subscribe({ signal: controller.signal })
      const left = client(server).subscribe()
      await Promise.all([closed.ready, aborted.ready, left.ready])
      await server.until(({ subscriptions }) => subscriptions === 3)
      const waiting = aborted.next()
      await server.publish(['1'])
      for await (const batch of left) {
        same(gist(batch), '1')
        break
      }
      same(gist(await waiting), '1')
      const failing = aborted.next()
      closed.close()
      controller.abort(new Error('enough'))
      await failing.then(
        () => same(true, false),
        (error: Error) => same(error.message, 'enough'),
      )
      await rejects(closed.next(), 'CLOSED')
      await server.until(({ subscriptions }) => subscriptions === 0)
    },
  },
  {
    name: 'closing while a connection is being opened gives it up',
    async run({ site, client }) {
      const server = await site()
      await server.setMode('silent')
      const subscription = client(server).subscribe()
      const next = subscription.next()
      await server.until(({ subscriptions, connections }) => subscriptions === 1 || connections > 0)
      subscription.close()
      await rejects(next, 'CLOSED')
      await rejects(subscription.ready, 'CLOSED')
      await server.until(({ subscriptions }) => subscriptions === 0)
    },
  },
  {
    name: 'a listener of the status that fails ends its subscription',
    async run({ site, client }) {
      const server = await site()
      const onStatus = ({ state }: Status) => {
        if (state === 'open') throw new Error('mine')
      }
      const subscription = client(server).subscribe({ onStatus })
      await subscription.next().then(
        () => same(true, false),
        (error: Error) => same(error.message, 'mine'),
      )
      await server.until(({ subscriptions }) => subscriptions === 0)
    },
  },
  {
    name: 'a wait for one batch can be given up, and the next one goes on',
    async run({ site, client }) {
      const server = await site()
      const subscription = client(server).subscribe()
      await subscription.ready
      const controller = new web.AbortController()
      const given = subscription.next({ signal: controller.signal })
      controller.abort(new Error('later'))
      await given.then(
        () => same(true, false),
        (error: Error) => same(error.message, 'later'),
      )
      await server.publish(['1', '2'])
      same(await take(subscription, 2), ['1', '2'])
      subscription.close()
    },
  },
  {
    name: 'a publish whose answer was lost is stored once',
    async run({ site, client }) {
      const server = await site()
      const publisher = client(server)
      same(await publisher.publish({ topic: 'T', type: 't', key: '1' }), 1)
      await server.setMode('lose answer')
      same(
        await publisher.publish([
          { topic: 'T', type: 't', key: '2' },
          { topic: 'T', type: 't', key: '3' },
        ]),
        2,
      )
      same((await server.state()).newest, 2)
      const subscription = publisher.subscribe({ from: 'earliest' })
      same(await take(subscription, 2), ['1', '2+3'])
      subscription.close()
    },
  },
  {
    name: 'a publish that is refused says why',
    async run({ site, client }) {
      const server = await site()
      const publisher = client(server)
      await publisher.publish({ topic: 'T', type: 't' })
      await rejects(publisher.publish({ topic: 'T' } as never), 'INVALID', /type must be a non-empty string/)
      await rejects(publisher.publish({ topic: 'T', type: 't' }, { index: 1 }), 'INDEX_ORDER')
      const { index } = await rejects(publisher.publish({ topic: 'T', type: 't' }, { expected: 7 }), 'INDEX_MISMATCH')
      same(index, 1)
    },
  },
  {
    name: 'a server that is not there is waited for',
    async run({ site, client }) {
      const server = await site()
      await server.setMode('refuse')
      const subscription = client(server).subscribe({ from: 'earliest' })
      const first = subscription.next()
      await server.until(({ connections }) => connections > 2)
      await server.setMode('pass')
      await server.publish(['1'])
      same(gist(await first), '1')
      subscription.close()
    },
  },
  {
    name: 'a redirect is not followed, whatever it leads to',
    ofFetch: true,
    async run({ site, client, transport }) {
      const elsewhere = await site()
      const location = `Location: ${elsewhere.url}/v1/events`
      const server = await site({ script: [scripted(transport, '', '307 Temporary Redirect', [location])] })
      const headers = { authorization: 'Bearer secret' }
      await rejects(client(server, { headers }).subscribe().next(), 'CONFIG', /redirects/)
      await rejects(client(server, { headers }).publish({ topic: 'T', type: 't' }), 'CONFIG', /redirects/)
      same((await elsewhere.state()).connections, 0)
    },
  },
  ...(
    [
      ['is no JSON', 'neither { nor }', 'PROTOCOL', /is not JSON/],
      ['has an index beyond all', batchText(1).replaceAll(':1', ':18446744073709551616'), 'PROTOCOL', /is no cursor/],
      ['has another index than its cursor', batchText(2).replace('"index":2', '"index":3'), 'PROTOCOL', /has index 3/],
      ['is of another history without a word', batchText(2, 'e-2'), 'PROTOCOL', /without a reset/],
      ['has no events', '{"index":2,"cursor":"e-1:2","events":[7]}', 'PROTOCOL', /events of index 2/],
      [
        'has a loss that makes no sense',
        '{"gap":{"after":1,"before":9,"reason":"lag","cursor":"e-1:3"}}',
        'PROTOCOL',
        /a loss/,
      ],
      ['never ends', 'x'.repeat(20_000), 'TOO_LARGE', /more than 10000 UTF-16 units/],
    ] as const
  ).map(
    ([what, message, code, words]): ClientTest => ({
      name: `a message that ${what} ends the subscription with ${code}, after what came before it`,
      async run({ site, client, transport }) {
        const body = framed(transport, batchText(1)) + framed(transport, message)
        const server = await site({ script: [scripted(transport, body)] })
        const subscription = client(server, { maxMessage: 10_000 }).subscribe({ from: 'earliest' })
        same(gist(await subscription.next()), '1')
        await rejects(subscription.next(), code, words)
        same(subscription.cursor, 'e-1:1')
      },
    }),
  ),
  {
    name: 'bytes that are no UTF-8 end the subscription',
    ofFetch: true,
    async run({ site, client, transport }) {
      const head = scripted(transport, framed(transport, batchText(1)))
      const server = await site({ script: [web.btoa(`${atob(head)}data: "\xff\xfe"\n\n`)] })
      const subscription = client(server).subscribe({ from: 'earliest' })
      await rejects(
        (async () => {
          for (;;) await subscription.next()
        })(),
        'PROTOCOL',
        /UTF-8/,
      )
    },
  },
  {
    name: 'a small answer that unpacks into a line without end is given up early',
    ofFetch: true,
    async run({ site, client, transport }) {
      const type = transport === 'sse' ? 'text/event-stream' : 'application/x-ndjson'
      const server = await site({ script: [`bomb:${type}`] })
      await rejects(client(server, { maxMessage: 100_000 }).subscribe().next(), 'TOO_LARGE', /more than 100000 UTF-16/)
    },
  },
  {
    name: 'gaps that never end are handed over one by one, and reading stops with the reader',
    async run({ site, client, transport }) {
      const gap = (n: number) =>
        framed(transport, `{"gap":{"after":${n - 1},"before":${n + 1},"reason":"lag","cursor":"e-1:${n}"}}`, 'gap')
      const server = await site({
        script: [
          scripted(
            transport,
            numbers(1, 500)
              .map((n) => gap(Number(n)))
              .join(''),
          ),
        ],
      })
      const subscription = client(server).subscribe({ from: 'earliest' })
      same(await take(subscription, 3), ['lag 0..2', 'lag 1..3', 'lag 2..4'])
      subscription.close()
      await rejects(subscription.next(), 'CLOSED')
      const strict = client(server).subscribe({ from: 'earliest', onLag: 'fail' })
      await rejects(strict.next(), 'LAGGED')
    },
  },
  {
    name: 'batches that come again, and messages of later versions, are passed over',
    async run({ site, client, transport }) {
      const open = transport === 'sse' ? 'id: e-1:0\n\n' : '{"open":{"cursor":"e-1:0","oldest":null,"newest":0}}\n'
      const say = (...messages: string[]) =>
        scripted(transport, open + messages.map((each) => framed(transport, each)).join(''))
      const server = await site({
        script: [say(batchText(1), '{"weather":"fine"}', batchText(2)), say(batchText(1), batchText(2), batchText(3))],
      })
      const subscription = client(server).subscribe({ from: 'earliest' })
      same(await take(subscription, 3), ['1', '2', '3'])
      subscription.close()
    },
  },
  {
    name: 'an answer that is no stream counts as a failure, and is tried again',
    ofFetch: true,
    async run({ site, client, transport }) {
      const signIn = bytes(
        'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nAccess-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n<h1>Sign in</h1>',
      )
      const busy = scripted(transport, '', '503 Service Unavailable', ['Retry-After: 0'])
      const server = await site({
        script: [signIn, scripted(transport, ''), busy, scripted(transport, framed(transport, batchText(1)))],
      })
      const errors: string[] = []
      const onStatus = (status: Status) => {
        if (status.state === 'waiting') errors.push(status.error.message)
      }
      const subscription = client(server).subscribe({ from: 'earliest', onStatus })
      same(await take(subscription, 1), ['1'])
      same(errors.length, 3)
      same(/is no stream/.test(errors[0] as string), true)
      subscription.close()
    },
  },
]
