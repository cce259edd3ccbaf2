export { type ErrorCode, SpillwayError } from '../core/errors.ts'
export type { Batch, EventOf, Gap, StreamEvent } from '../core/event.ts'
export type { Subscription } from '../core/subscription.ts'
export {
  type Client,
  type ClientFrom,
  type ClientHeaders,
  type ClientOptions,
  type ClientPublishOptions,
  type ClientSubscribeOptions,
  createClient,
  type Status,
  type Transport,
} from './client.ts'
export {
  byKey,
  newest,
  type StoreOptions,
  type StoreSnapshot,
  type StreamStore,
  type Streams,
  toStore,
} from './store.ts'
