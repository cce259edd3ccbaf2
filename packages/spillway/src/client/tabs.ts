import { systemClock } from '../core/clock.ts'
import { parseCursor } from '../core/cursor.ts'
import { invalid, wrongOption } from '../core/errors.ts'
import type { TopicMap } from '../core/event.ts'
import type { Subscription } from '../core/subscription.ts'
import {
  type Client,
  type ClientOptions,
  type ClientSubscribeOptions,
  createClient,
  filterQuery,
  startQuery,
} from './client.ts'
import { host } from './runtime.ts'
import { tabHost } from './tab-channel.ts'
import { TabSubscription } from './tab-subscription.ts'

export { type ErrorCode, SpillwayError } from '../core/errors.ts'
export type { Batch, EventOf, Gap, StreamEvent } from '../core/event.ts'
export type { Subscription } from '../core/subscription.ts'
export type {
  Client,
  ClientFrom,
  ClientHeaders,
  ClientOptions,
  ClientPublishOptions,
  ClientSubscribeOptions,
  Status,
  Transport,
} from './client.ts'

export interface TabsClientOptions extends ClientOptions {
  /**
   * Whose streams these are: tabs share a connection only under the same name. Needed where somebody is known by a cookie,
   * so that a tab that signed in as somebody else gets a connection of its own. Default: the headers that are sent at the start.
   */
  user?: string | undefined
}

/**
 * A client whose subscriptions share their connection with those of the origin's other tabs that want the same: the same
 * `url`, `credentials`, `user` or headers, topics, namespaces and filter. Each subscription is like that of `createClient`:
 * every batch once and in order, also when the tab that holds the connection is closed; losses are told.
 *
 * `latest` is where the tab that holds the connection is: a batch that is on its way there counts as new.
 *
 * What a tab asks for from before the others' position, or did not read in time, it reads by a connection of its own until
 * it is level. Without the Web Locks API, `BroadcastChannel` or `crypto.subtle`, as on pages without TLS, nothing is shared.
 * Throws `CONFIG` that names the option.
 */
export function createTabsClient<Topics extends object = TopicMap>({
  user,
  ...options
}: TabsClientOptions): Client<Topics> {
  if (user !== undefined && typeof user !== 'string') throw wrongOption('user', 'a string', user)
  // The topics exist only in the types.
  const client = createClient(options) as unknown as PlainClient
  const locks = tabHost.navigator?.locks
  const canShare = locks && tabHost.BroadcastChannel && tabHost.crypto.subtle
  const subscribe = (wanted: ClientSubscribeOptions = {}): Subscription => {
    if (!canShare) return client.subscribe(wanted)
    const { from = 'latest', exact = false, onLag = 'skip', signal, onStatus, ...filter } = wanted
    if (onLag !== 'fail' && onLag !== 'skip') throw invalid('onLag', 'be "fail" or "skip"', onLag)
    if (signal?.aborted) throw signal.reason
    const query = filterQuery(filter)
    startQuery(from)
    const start = typeof from === 'string' && from !== 'latest' && from !== 'earliest' ? from : undefined
    if (start !== undefined) parseCursor(start)
    const route = {
      share: shareName(options, user, query),
      locks,
      clock: systemClock,
      open: (cursor: string | undefined, onStatus: ClientSubscribeOptions['onStatus']) =>
        client.subscribe(
          cursor === undefined ? { ...filter, from, exact, onStatus } : { ...filter, from: cursor, onStatus },
        ),
      isLatest: from === 'latest',
      onLag,
      onStatus,
    }
    return new TabSubscription(route, start, signal)
  }
  return { subscribe, publish: client.publish.bind(client) } as unknown as Client<Topics>
}

interface PlainClient {
  subscribe(options: ClientSubscribeOptions): Subscription
  publish(...args: unknown[]): Promise<number>
}

/** What tabs that share have in common, as a name that shows no token. */
async function shareName(
  { url, credentials, headers = {} }: ClientOptions,
  user: string | undefined,
  query: string,
): Promise<string> {
  const given = user === undefined && (typeof headers === 'function' ? await headers() : headers)
  const whose = user ?? Object.entries(given).map(([name, value]) => [name.toLowerCase(), value])
  const { href } = new host.URL(typeof url === 'string' ? url : url.href, host.location?.href)
  const text = JSON.stringify([href, credentials, whose, query])
  const hash = await tabHost.crypto.subtle?.digest('SHA-256', new tabHost.TextEncoder().encode(text))
  const hex = Array.from(new Uint8Array(hash as ArrayBuffer), (byte) => byte.toString(16).padStart(2, '0'))
  // The number is that of what tabs say to each other: those that speak otherwise, after an update, share among themselves.
  return `spillway tabs 1 ${hex.join('')}`
}
