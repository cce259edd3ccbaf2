import { onDisk } from './disk/part.ts'
import { inEngines } from './engines/part.ts'
import { inProcess } from './inProcess.ts'
import type { Part } from './part.ts'
import { sockets, writePaths } from './sockets/part.ts'
import { betweenThreads } from './threads/part.ts'

export const parts: readonly Part[] = [inProcess, sockets, onDisk, betweenThreads, inEngines, writePaths]
