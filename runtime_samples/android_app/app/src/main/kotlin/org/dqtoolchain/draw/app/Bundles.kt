package org.dqtoolchain.draw.app

import java.io.File

/** Bundles of whole pipelines in a folder, by name; a name that begins with a dot is still being pushed. */
fun bundlesIn(folder: File): List<File> =
    folder.listFiles { file -> !file.name.startsWith(".") && File(file, "pipeline.json").isFile }.orEmpty().sortedBy(File::getName)
