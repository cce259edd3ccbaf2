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
