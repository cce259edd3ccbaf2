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
