export { type ErrorCode, SpillwayError } from '../core/errors.ts'
export type { Batch, EventOf, Gap, StreamEvent } from '../core/event.ts'
export type { Log } from '../core/log.ts'
export type { Subscription } from '../core/subscription.ts'
export type { SharedHandle } from './layout.ts'
export { openSharedLog } from './log-view.ts'
export { type OpenedBuffer, type OpenOptions, openSharedBuffer } from './opened.ts'
export type { SharedPort } from './port.ts'
export {
  createSharedBuffer,
  type FeedOptions,
  recoverSharedBuffer,
  type SharedBuffer,
  type SharedBufferOptions,
} from './shared-buffer.ts'
export { type SharedLog, type SharedLogHandle, type ShareOptions, shareLog } from './shared-log.ts'
export type { SharedSubscribeOptions, SharedSubscription } from './subscription.ts'
