package org.dqtoolchain.draw.app

import android.app.Activity
import android.content.ClipData
import android.content.Intent
import android.graphics.Bitmap
import androidx.core.content.FileProvider
import java.io.File
import java.io.IOException
import org.dqtoolchain.draw.DrawnPicture

fun DrawnPicture.bitmap(): Bitmap = Bitmap.createBitmap(argb, width, height, Bitmap.Config.ARGB_8888)

/** Writes the picture as PNG and lets a person choose the app that gets it. @throws IOException there is no space for all of it */
@Throws(IOException::class)
fun Activity.share(bitmap: Bitmap) {
    val folder = File(cacheDir, "pictures") // as res/xml/pictures.xml says
    if (!folder.isDirectory && !folder.mkdirs()) throw IOException("cannot make $folder; free some space")
    val file = File(folder, "picture.png")
    if (!file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }) { // what a full disk throws, it keeps
        file.delete()
        throw IOException("$file would be cut; free some space")
    }
    val uri = FileProvider.getUriForFile(this, "$packageName.pictures", file)
    val intent = Intent(Intent.ACTION_SEND)
    intent.type = "image/png"
    intent.putExtra(Intent.EXTRA_STREAM, uri)
    intent.clipData = ClipData.newRawUri(null, uri) // the permission goes to the app that is chosen
    intent.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
    startActivity(Intent.createChooser(intent, null))
}
