import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { SpillwayError } from 'spillway'
import { FileWatch } from './auth/file-watch.ts'
import { Listeners } from './auth/listeners.ts'
import { type ServerLog, silentLog } from './log.ts'

/** What a server shows and proves who it is by, in PEM. */
export interface CertificatePair {
  readonly cert: string
  readonly key: string
}

/** A certificate that is renewed while the server runs. */
export interface Certificate {
  readonly current: CertificatePair
  onChange(listener: (pair: CertificatePair) => void): () => void
  close(): Promise<void>
}

export interface CertificateOptions {
  /** The certificate and those that signed it, in PEM. */
  readonly certFile: string
  readonly keyFile: string
  /** Default: silent. */
  readonly log?: ServerLog
  /** Milliseconds between looks at files whose changes nobody tells. Default 1000. */
  readonly interval?: number
}

/**
 * The certificate of two files, which may be replaced at any time, in any order: what does not fit together changes nothing.
 * Rejects with `CONFIG` if they cannot be used from the start.
 */
export async function openCertificate(options: CertificateOptions): Promise<Certificate> {
  const { certFile, keyFile, log = silentLog, interval } = options
  const listeners = new Listeners<CertificatePair>()
  let current = await readPair(certFile, keyFile)
  let problem = ''
  const look = async () => {
    try {
      const next = await readPair(certFile, keyFile)
      problem = ''
      if (next.cert === current.cert && next.key === current.key) return
      current = next
      log.info('The certificate was replaced', { file: certFile })
      listeners.tell(next)
    } catch (error) {
      const { message } = error as Error
      if (message === problem) return
      problem = message
      log.error('The certificate that was read last stays in force', { error })
    }
  }
  const watches = [certFile, keyFile].map((file) => new FileWatch(file, look, interval))
  return {
    get current() {
      return current
    },
    onChange: (listener) => listeners.add(listener),
    async close() {
      await Promise.all(watches.map((watch) => watch.close()))
    },
  }
}

async function readPair(certFile: string, keyFile: string): Promise<CertificatePair> {
  const read = async (file: string) => {
    try {
      return await readFile(file, 'utf8')
    } catch (cause) {
      throw new SpillwayError('CONFIG', `${file} cannot be read: ${(cause as Error).message}.`, { cause })
    }
  }
  const pair = { cert: await read(certFile), key: await read(keyFile) }
  try {
    createSecureContext(pair)
  } catch (cause) {
    // OpenSSL's words name no content.
    const { message } = cause as Error
    throw new SpillwayError('CONFIG', `${certFile} and ${keyFile} are no certificate and its key: ${message}.`, {
      cause,
    })
  }
  return pair
}
